"""Linear models of shieldings."""

import warnings
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_clusters.errors import InputError
from pyg_clusters.geometry import batch_to_ptr, check_radii, one_cluster
from pyg_clusters.models.training_domain import TrainingDomain
from pyg_clusters.nn.extended_huckel import ExtendedHuckel
from pyg_clusters.nn.shielding_scale import GeneralizedLogistic
from pyg_clusters.positions import usable_positions
from pyg_clusters.transforms.neighbors import SODIUM_RADII, running_coordination

Variables = Literal["coordination", "populations", "both", "huckel"]

NUM_POPULATIONS: int = 19  # gross orbital populations of an atom, one for each 6-31G(d) function of sodium

ALPHAS: tuple[float, ...] = tuple(10.0**power for power in range(-5, 6))
"""Weights of the penalty compared by Kaneko et al. 2023."""

MIN_DEVIATION: float = 0.01
"""Smallest standard deviation over the training set, in neighbours, of a coordination number that is used. Just below
the smallest distance of the training set, the deviation is about 0.0003: after division by it, a single neighbour
would change a prediction by hundreds of ppm."""

MAX_ITERATIONS: int = 20_000


class ShieldingLasso(nn.Module):
    r"""Lasso regression of atomic shieldings on running coordination numbers, orbital populations, or both (`Kaneko et
    al. 2023 <https://doi.org/10.20517/jmi.2022.39>`_).

    .. math::
        \sigma_i = t^{-1}\Big(b + \sum_k w_k \frac{x_{ik} - \bar{x}_k}{s_k}\Big), \qquad
        \min_{w, b} \frac{1}{2n} \sum_i \big(t(\sigma_i^{DFT}) - t(\sigma_i)\big)^2 + \alpha \sum_k |w_k|

    The variables are standardised by their mean and standard deviation over the training set; coordination numbers
    with a standard deviation below 0.01 neighbours are not used. Without a transform, t is the identity. Coordination
    numbers are computed from the positions, without any electronic-structure calculation. Populations come from the
    same DFT calculation as the shieldings (:attr:`needs_dft`): a model with populations shows what shieldings depend
    on, and saves only the response calculation. The features of an extended Hückel calculation
    (:class:`~pyg_clusters.nn.ExtendedHuckel`; not in the paper, neutral sodium clusters only) need no DFT.

    Args:
        variables (str): ``"coordination"``, ``"populations"``, ``"both"`` or ``"huckel"``.
        transform (bool): Whether t is the transform of a :class:`~pyg_clusters.nn.GeneralizedLogistic`
            fitted to the shieldings of the training set, or else the identity.
        radii (sequence of float): Increasing radii of the coordination numbers in Å.
        width (float): Width (standard deviation) of the Gaussian steps of the coordination numbers in Å.

    Shapes:
        - **input:** atomic numbers ``z [num_atoms]`` (only checked), positions ``pos [num_atoms, 3]`` in Å, cluster
          indices ``batch [num_atoms]`` (sorted), and ``populations [num_atoms, 19]`` if they are variables
        - **output:** shieldings ``[num_atoms]`` in ppm

    Example:
        >>> import torch
        >>> batch = torch.arange(30).repeat_interleave(2)  # dimers; the shielding grows with the distance
        >>> pos, distance = torch.zeros(60, 3), torch.linspace(3.0, 6.0, 30)
        >>> pos[1::2, 2] = distance
        >>> data = Data(z=torch.full((60,), 11), pos=pos, batch=batch, y=(600 + distance).repeat_interleave(2))
        >>> lasso = ShieldingLasso()
        >>> errors = lasso.fit(data, data)
        >>> min(errors.values()) < 0.1, max(errors.values()) > 0.5, lasso.needs_dft
        (True, True, False)
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        variables: Variables = "coordination",
        transform: bool = False,
        radii: Sequence[float] = SODIUM_RADII,
        width: float = 0.01,
    ):
        super().__init__()
        if variables not in get_args(Variables):
            raise ValueError(f"variables must be one of {', '.join(get_args(Variables))}, got {variables!r}")
        self.variables = variables
        self.transform = transform
        self.radii = check_radii(radii)
        self.width = width
        self.huckel = ExtendedHuckel() if variables == "huckel" else None
        num_variables = self.num_coordination + self.needs_dft * NUM_POPULATIONS
        num_variables += (variables == "huckel") * ExtendedHuckel.num_features
        self.register_buffer("mean", torch.zeros(num_variables))
        self.register_buffer("deviation", torch.ones(num_variables))
        self.linear = nn.Linear(num_variables, 1)
        self.distribution = GeneralizedLogistic() if transform else None
        self.domain = TrainingDomain()
        self.reset_parameters()

    def reset_parameters(self):
        """Reset to zero weights."""
        self.mean.fill_(0.0)
        self.deviation.fill_(1.0)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        if self.distribution is not None:
            self.distribution.load_state_dict(GeneralizedLogistic().state_dict())

    @property
    def needs_dft(self) -> bool:
        """Whether predictions need orbital populations of a DFT calculation."""
        return self.variables in ("populations", "both")

    @property
    def num_coordination(self) -> int:
        """Number of coordination numbers among the variables."""
        return len(self.radii) if self.variables in ("coordination", "both") else 0

    def forward(
        self, z: Tensor, pos: Tensor, batch: Tensor | None = None, *, populations: Tensor | None = None
    ) -> Tensor:
        self.domain.check(z)
        batch = one_cluster(pos) if batch is None else batch
        pos, defect = usable_positions(pos, batch)
        variables = self.variables_of(z, pos, batch, populations).to(self.linear.weight.dtype)
        return self._in_ppm(self.linear((variables - self.mean) / self.deviation).squeeze(-1) + defect)  # [num_atoms]

    def variables_of(self, z: Tensor, pos: Tensor, batch: Tensor, populations: Tensor | None = None) -> Tensor:
        """Variables of each atom before standardisation, ``[num_atoms, num_variables]``."""
        parts = []
        if self.huckel is not None:
            parts.append(self.huckel(z, pos, batch))
        if self.num_coordination:
            parts.append(running_coordination(pos, batch_to_ptr(batch), self.radii, self.width))
        if self.needs_dft:
            if populations is None or populations.shape != (batch.numel(), NUM_POPULATIONS):
                got = "none" if populations is None else list(populations.shape)
                raise InputError(
                    f"this Lasso needs the {NUM_POPULATIONS} orbital populations of each atom (a DFT calculation), got "
                    f"{got}; a Lasso on coordination numbers does not need them"
                )
            parts.append(populations.to(pos.dtype))
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def fit(self, train: Data, val: Data, alphas: Sequence[float] = ALPHAS) -> dict[float, float]:
        """Fit the model for each α with scikit-learn and keep the fit with the smallest validation RMSE.

        Fits of small α may stop before convergence; they are compared by their validation error like all others.

        Args:
            train: Clusters of the training set in one batch, with ``z``, ``pos``, ``batch``, ``y [num_atoms]`` in ppm,
                and ``populations`` if they are variables.
            val: Clusters of the validation set.
            alphas: Weights of the penalty in ppm, or dimensionless with a transform.

        Returns:
            Validation RMSE in ppm for each α.

        Raises:
            InputError: If there are several elements, required populations are missing, a shielding is not finite, the
                training shieldings are fewer than two or all equal, the validation set is empty, or the distribution
                cannot be fitted.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import Lasso

        _check_shieldings(train.y, "training", at_least=2)
        _check_shieldings(val.y, "validation", at_least=1)
        if train.y.min() == train.y.max():
            raise InputError(
                f"all {train.y.numel()} shieldings of the training set are {train.y[0]:g} ppm: nothing can be learned"
            )
        elements = torch.cat([train.z, val.z]).unique()
        if elements.numel() > 1:
            symbols = ", ".join(chemical_symbols[number] for number in elements.tolist())
            raise InputError(f"a Lasso does not tell elements apart, but there are {symbols}; use NodeSchNet")
        variables = self._variables_of_data(train)
        mean, deviation = variables.mean(axis=0), self._deviation_of(variables)
        target = train.y.double()
        if self.distribution is not None:
            self.distribution.load_state_dict(GeneralizedLogistic.fit(target).state_dict())
            target = self.distribution(target)
        x, x_val = (variables - mean) / deviation, (self._variables_of_data(val) - mean) / deviation
        errors: dict[float, float] = {}
        best = np.zeros_like(mean), 0.0
        lasso = Lasso(warm_start=True, precompute=True, max_iter=MAX_ITERATIONS, tol=1e-6)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            for alpha in sorted(alphas, reverse=True):
                lasso.set_params(alpha=alpha).fit(x, target.numpy())
                error = self._in_ppm(torch.from_numpy(lasso.predict(x_val))) - val.y.double()
                rmse = float(error.square().mean().sqrt())
                if rmse < min(errors.values(), default=float("inf")):
                    best = lasso.coef_.copy(), float(lasso.intercept_)
                errors[alpha] = rmse
        self.mean.copy_(torch.from_numpy(mean))
        self.deviation.copy_(torch.from_numpy(deviation))
        self.linear.weight.copy_(torch.from_numpy(best[0]).view(1, -1))
        self.linear.bias.fill_(best[1])
        self.domain.fit(train.z, batch_to_ptr(train.batch))
        return errors

    def _variables_of_data(self, data: Data) -> np.ndarray:
        return self.variables_of(data.z, data.pos.double(), data.batch, data.get("populations")).numpy()

    def _deviation_of(self, variables: np.ndarray) -> np.ndarray:
        """Standard deviations; infinite for variables that hardly vary, which sets them to zero."""
        deviation = variables.std(axis=0)
        smallest = np.where(np.arange(deviation.size) < self.num_coordination, MIN_DEVIATION, 1e-9)
        return np.where(deviation < smallest, np.inf, deviation)

    def _in_ppm(self, values: Tensor) -> Tensor:
        return values if self.distribution is None else self.distribution.inverse(values)

    def extra_repr(self) -> str:
        used = int((self.linear.weight != 0).sum())
        return f"variables={self.variables!r}, transform={self.transform}, nonzero={used}"


def _check_shieldings(shielding: Tensor, part: str, at_least: int):
    if shielding.numel() < at_least:
        raise InputError(f"a Lasso needs at least {at_least} atoms in the {part} set, got {shielding.numel()}")
    wrong = (~shielding.isfinite()).nonzero().flatten()
    if wrong.numel():
        atom = int(wrong[0])
        raise InputError(f"the shielding of atom {atom} of the {part} set is {shielding[atom]}; leave its cluster out")
