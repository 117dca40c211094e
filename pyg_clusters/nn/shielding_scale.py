"""Scaling of raw network outputs to shieldings, and the distribution that transforms them."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from pyg_clusters.errors import InputError
from pyg_clusters.nn.output_scale import MAX_ATOMIC_NUMBER, OutputScale

MIN_VALUES: int = 10  # minimum number of values for a fit
EQUAL: float = 1e-9  # relative difference below which values count as equal

# scipy.stats is imported only for fits: it takes a second and changes the warning filters, and a trained model does not
# need it.


class GeneralizedLogistic(nn.Module):
    r"""Generalised logistic distribution (type I) and its transform to a standard normal distribution.

    .. math::
        F(x) = \big(1 + e^{-(x - x_0) / s}\big)^{-c}, \qquad t(x) = \Phi^{-1}(F(x))

    with the normal distribution function :math:`\Phi`. For c < 1 the left tail is longer: Kaneko et al. 2023 (`doi
    10.20517/jmi.2022.39 <https://doi.org/10.20517/jmi.2022.39>`_) fit it to 23Na shieldings and train on the
    transformed values.

    Transform and inverse are computed in double precision from the logarithm of :math:`F` or :math:`1 - F`, whichever
    is smaller. Both are finite for every finite argument, differentiable, and inverse functions of each other up to
    rounding, even in the far tails. The result has the type of the argument.

    Args:
        c (float): Shape, positive; 1 is the logistic distribution.
        loc (float): Location :math:`x_0`, in the unit of the values.
        scale (float): Width s, positive, in the unit of the values.

    Example:
        >>> t = GeneralizedLogistic(c=0.3, loc=615.0, scale=10.0)
        >>> z = t(torch.tensor([400.0, 600.0, 640.0], dtype=torch.double))
        >>> z
        tensor([-2.9516,  0.2540,  1.9883], dtype=torch.float64)
        >>> t.inverse(z)
        tensor([400., 600., 640.], dtype=torch.float64)
    """

    c: Tensor
    loc: Tensor
    scale: Tensor

    def __init__(self, c: float = 1.0, loc: float = 0.0, scale: float = 1.0):
        super().__init__()
        if not (0 < c < math.inf and math.isfinite(loc) and 0 < scale < math.inf):
            raise ValueError(f"c and scale must be positive and all finite, got c={c}, loc={loc}, scale={scale}")
        self.register_buffer("c", torch.tensor(float(c)))
        self.register_buffer("loc", torch.tensor(float(loc)))
        self.register_buffer("scale", torch.tensor(float(scale)))

    @classmethod
    def fit(cls, values: Tensor | ArrayLike) -> "GeneralizedLogistic":
        """Fit by maximum likelihood (:data:`scipy.stats.genlogistic`).

        Args:
            values: Values of any shape and unit.

        Raises:
            InputError: If there are fewer than ten values, one is not finite, or all are equal.
        """
        from scipy.stats import genlogistic

        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
        array = np.asarray(array, dtype=np.float64).ravel()
        if array.size < MIN_VALUES:
            raise InputError(f"at least {MIN_VALUES} values are needed to fit a distribution, got {array.size}")
        if not np.isfinite(array).all():
            wrong = np.flatnonzero(~np.isfinite(array))[0]
            raise InputError(f"a distribution cannot be fitted: value {wrong} is {array[wrong]}; remove it")
        if np.ptp(array) <= EQUAL * np.abs(array).max():
            raise InputError(f"a distribution cannot be fitted: all {array.size} values are {array[0]:g}")
        center, width = array.mean(), array.std()
        standard = (array - center) / width
        c, loc, scale = _of_equal_moments(standard)
        with np.errstate(all="ignore"):  # the search may leave the domain temporarily
            c, loc, scale = (float(value) for value in genlogistic.fit(standard, c, loc=loc, scale=scale))
        if not (0 < c < math.inf and math.isfinite(loc) and 0 < scale < math.inf):
            raise InputError(f"a generalised logistic distribution does not fit the {array.size} values")
        return cls(c, float(center + width * loc), float(width * scale))

    def log_cdf(self, values: Tensor) -> Tensor:
        """Logarithm of the distribution function, in double precision."""
        c, loc, scale = self._in_double()
        return -c * _softplus(-(values.double() - loc) / scale)

    def log_survival(self, values: Tensor) -> Tensor:
        """Logarithm of one minus the distribution function, in double precision."""
        c, loc, scale = self._in_double()
        return _log_one_minus_exp(c.log() + _log_softplus(-(values.double() - loc) / scale))

    def forward(self, values: Tensor) -> Tensor:
        """Standard normal quantiles of the distribution function; shape and type are those of the values."""
        lower, upper = self.log_cdf(values), self.log_survival(values)
        quantile = _normal_quantile(torch.where(lower <= upper, lower, upper))  # at most zero
        return torch.where(lower <= upper, quantile, -quantile).to(values.dtype)

    def inverse(self, quantiles: Tensor) -> Tensor:
        """Values that correspond to standard normal quantiles; shape and type are those of the quantiles."""
        c, loc, scale = self._in_double()
        log_softplus = _log_minus_log_ndtr(quantiles.double()) - c.log()  # of -(x - loc) / scale
        return (loc - scale * _log_expm1_exp(log_softplus)).to(quantiles.dtype)

    def _in_double(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.c.double(), self.loc.double(), self.scale.double()

    def extra_repr(self) -> str:
        return f"c={float(self.c):.6g}, loc={float(self.loc):.6g}, scale={float(self.scale):.6g}"


def _of_equal_moments(standard: np.ndarray) -> tuple[float, float, float]:
    """Initial shape, location and width for a fit, from the skewness of values of mean 0 and variance 1.

    With SciPy's initial values, those of the symmetric distribution, the fit does not converge for skewed samples.
    """
    from scipy.stats import genlogistic

    shapes = np.geomspace(0.05, 20, 60)
    mean, variance, skewness = genlogistic.stats(shapes, moments="mvs")
    nearest = np.abs(skewness - (standard**3).mean()).argmin()
    width = 1 / np.sqrt(variance[nearest])
    return float(shapes[nearest]), float(-width * mean[nearest]), float(width)


def _softplus(x: Tensor) -> Tensor:
    """log(1 + e^x) to double precision (PyTorch's softplus is linear above 20)."""
    return torch.logaddexp(x, torch.zeros_like(x))


# Each function below chooses between two formulas. The argument of the unused one is clamped to its domain, as its
# infinite derivative would become NaN.


def _log_softplus(x: Tensor) -> Tensor:
    """log(log(1 + e^x)), also where the inner logarithm underflows."""
    small = x < -20
    tail = x.clamp(max=-20)
    return torch.where(small, tail - tail.exp() / 2, _softplus(x.clamp(min=-20)).log())


def _log_one_minus_exp(log_y: Tensor) -> Tensor:
    """log(1 - e^-y) of y = e^log_y, also where y underflows."""
    small = log_y < -10
    tail = log_y.clamp(max=-10)
    y = log_y.clamp(min=-10, max=700).exp()
    return torch.where(small, tail - tail.exp() / 2, (-torch.expm1(-y)).log())


def _log_expm1_exp(log_y: Tensor) -> Tensor:
    """log(e^y - 1) of y = e^log_y, also where y underflows."""
    small = log_y < -10
    tail = log_y.clamp(max=-10).exp()
    y = log_y.clamp(min=-10).exp()
    return torch.where(small, log_y.clamp(max=-10) + tail / 2 + tail**2 / 24, y + (-torch.expm1(-y)).log())


def _log_minus_log_ndtr(z: Tensor) -> Tensor:
    """log(-log Φ(z)), also where log Φ underflows."""
    large = z > 8
    tail = torch.special.log_ndtr(-z.clamp(min=8))  # -log Φ(z) = 1 - Φ(z) to double precision
    return torch.where(large, tail, (-torch.special.log_ndtr(z.clamp(max=8))).log())


def _normal_quantile(log_p: Tensor) -> Tensor:
    """Quantile z of log Φ(z) = log_p, for p of at most one half, by Newton's method on log Φ."""
    with torch.no_grad():
        far = (-2 * log_p.clamp(max=-50)).sqrt()
        far = -(far.square() - 2 * far.log() - math.log(2 * math.pi)).sqrt()
        z = torch.where(log_p < -50, far, torch.special.ndtri(log_p.clamp(min=-50).exp()))
        for _ in range(3):
            z = z + (log_p - torch.special.log_ndtr(z)) / _slope(z)
        slope = _slope(z)
        rest = -torch.special.log_ndtr(z)
    return z + (log_p + rest) / slope  # the last step carries the derivative


def _slope(z: Tensor) -> Tensor:
    """Derivative of log Φ, for z of at most zero: √(2/π) / erfcx(-z/√2)."""
    return math.sqrt(2 / math.pi) / torch.special.erfcx(-z / math.sqrt(2))


class ShieldingScale(OutputScale):
    r"""Shielding of an atom in ppm from the raw output of a network, :math:`\sigma_i = t^{-1}(m + o(z_i) + s\, r_i)`.

    Without a transform :math:`t` is the identity. Mean m, offsets o of the elements, scale s and the parameters of the
    transform are buffers, so they are saved and moved with the model, and the targets of the data set need not be
    changed. The offsets are the mean of each element minus m; fitted to a single element, the scale has none. Before
    :meth:`fit` raw outputs are not scaled.

    Args:
        transform (bool): Whether to transform the targets to a standard normal distribution with a
            :class:`~pyg_clusters.nn.GeneralizedLogistic` that is fitted to them.

    Shapes:
        - **input:** raw output ``[num_atoms]``, atomic numbers ``z [num_atoms]`` (may be ``None`` if the scale was
          fitted to one element)
        - **output:** ``[num_atoms]`` in ppm

    Example:
        >>> scale = ShieldingScale()
        >>> z, shieldings = torch.tensor([13, 13, 31, 31]), torch.tensor([540.0, 560.0, 1790.0, 1810.0])
        >>> scale.fit(z, torch.tensor([0, 4]), shieldings)
        >>> scale.standardize(shieldings, z)
        tensor([-1.,  1., -1.,  1.])
    """

    mean: Tensor
    scale: Tensor
    offset: Tensor | None

    def __init__(self, transform: bool = False):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("offset", None)
        self.transform = GeneralizedLogistic() if transform else None
        self.reset_parameters()

    def reset_parameters(self):
        super().reset_parameters()
        self.mean.fill_(0.0)
        self.scale.fill_(1.0)
        self.offset = None
        if self.transform is not None:
            self.transform.load_state_dict(GeneralizedLogistic().state_dict())

    @torch.no_grad()
    def fit_blocks(self, blocks: Iterable[tuple[Tensor, Tensor, Tensor]]):
        """Fit the transform, if any, and the means and standard deviation of the (transformed) shieldings.

        The standard deviation is that from the means of the elements; if it is zero, the scale is one. The shieldings
        of all blocks are in memory together.

        Raises:
            InputError: If there is no shielding, one is not finite, or the distribution cannot be fitted.
        """
        parts = [(z, shielding) for z, _, shielding in blocks]
        z, values = torch.cat([z for z, _ in parts]), torch.cat([shielding for _, shielding in parts]).double()
        if not values.numel() or not values.isfinite().all():
            what = "there is none" if not values.numel() else f"one is {values[~values.isfinite()][0]:g}"
            raise InputError(f"training shieldings must be finite numbers: {what}; leave such clusters out")
        if self.transform is not None:
            self.transform.load_state_dict(GeneralizedLogistic.fit(values).state_dict())
            values = self.transform(values)
        if z.shape != values.shape:
            raise InputError(f"training shieldings must be [num_atoms], got {list(values.shape)} for {z.numel()} atoms")
        self.is_fitted = True
        mean, self.offset = values.mean(), None
        self.mean.copy_(mean)
        if len(elements := z.unique().tolist()) > 1:
            offset = values.new_zeros(MAX_ATOMIC_NUMBER + 1)
            for number in elements:
                offset[number] = values[z == number].mean() - mean
            values, self.offset = values - offset[z], offset.to(self.mean)
        deviation = values.std(correction=0)
        self.scale.copy_(deviation if deviation > 0 else torch.ones_like(deviation))

    def forward(self, raw: Tensor, z: Tensor | None = None) -> Tensor:
        self.warn_unfitted()
        raw = raw.to(self.scale.dtype)  # mixed precision would round shieldings to 2 ppm
        values = self._means(z) + self.scale * raw
        return values if self.transform is None else self.transform.inverse(values)

    def standardize(self, shielding: Tensor, z: Tensor | None = None) -> Tensor:
        """Raw outputs that correspond to shieldings in ppm, for a loss on transformed values."""
        values = shielding if self.transform is None else self.transform(shielding)
        return (values - self._means(z)) / self.scale

    def _means(self, z: Tensor | None) -> Tensor:
        """Mean of the (transformed) shieldings, of each element ``[num_atoms]`` if the scale was fitted to several."""
        if self.offset is None:
            return self.mean
        if z is None:
            raise InputError("atomic numbers z are needed: the model was trained on several elements")
        return self.mean + self.offset[z]

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args):
        if f"{prefix}scale" in state_dict:  # a state dict of other modules leaves the offsets unchanged
            self.offset = self.mean.new_empty(MAX_ATOMIC_NUMBER + 1) if f"{prefix}offset" in state_dict else None
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f"mean={float(self.mean):.6g}, scale={float(self.scale):.6g}"
