"""Distributions used to transform targets."""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from pyg_clusters.errors import InputError

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
