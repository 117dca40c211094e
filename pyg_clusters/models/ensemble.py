"""Models with an uncertainty estimate: deep ensembles and the last-layer posterior of a single DART."""

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import cast

import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from pyg_clusters.errors import InputError
from pyg_clusters.geometry import one_cluster, ptr_to_batch, sum_over_clusters, whole_clusters
from pyg_clusters.models.contract import HasAtomicEnergies, HasFastPath
from pyg_clusters.models.dart import DART
from pyg_clusters.models.training_domain import TrainingDomain, domain_of, state_of_training
from pyg_clusters.nn.output_scale import EnergyScale


class Ensemble(nn.Module):
    r"""Mean of several models trained from different random seeds (Lakshminarayanan, Pritzel, Blundell, `"Simple and
    scalable predictive uncertainty estimation using deep ensembles" <https://arxiv.org/abs/1612.01474>`_, 2017).

    :meth:`forward` takes the arguments of a member and returns the mean over the members. :meth:`mean_and_spread` also
    returns their standard deviation s,

    .. math::
        s^2 = \frac{1}{M - 1} \sum_m (E_m - \bar E)^2.

    The spread estimates the uncertainty due to limited training data. Errors that all members share do not contribute
    to it.

    Args:
        members (sequence of Module): At least two models trained on the same elements, charge and kind of target.

    Raises:
        InputError: If there are fewer than two members, or their elements, charges or targets differ.

    Example:
        >>> import torch
        >>> from pyg_clusters.models import DART
        >>> ensemble = Ensemble([DART(), DART(), DART()])
        >>> z, batch, pos = torch.full((4,), 31), torch.tensor([0, 0, 1, 1]), 3 * torch.rand(4, 3)
        >>> mean, spread = ensemble.mean_and_spread(z, pos, batch)
        >>> mean.shape, spread.shape
        (torch.Size([2]), torch.Size([2]))
    """

    def __init__(self, members: Sequence[nn.Module]):
        super().__init__()
        if len(members) < 2:
            raise InputError(f"an ensemble needs at least two members, got {len(members)}")
        _check_alike(members)
        self.members = nn.ModuleList(members)
        domains = [domain for each in members if isinstance(domain := getattr(each, "domain", None), TrainingDomain)]
        if len(domains) == len(members):
            self.domain = _common(domains)

    def forward(self, z: Tensor | None, pos: Tensor | None, batch: Tensor | None = None, **extra: Tensor) -> Tensor:
        """Mean over the members, with the shape of a member's output; the arguments are those of a member."""
        return self.member_values(z, pos, batch, **extra).mean(0)

    def mean_and_spread(
        self, z: Tensor | None, pos: Tensor | None, batch: Tensor | None = None, **extra: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over the members, each with the shape and unit of a member's output."""
        return mean_and_spread(self.member_values(z, pos, batch, **extra))

    def member_values(
        self, z: Tensor | None, pos: Tensor | None, batch: Tensor | None = None, **extra: Tensor
    ) -> Tensor:
        """Predictions of the members, ``[num_members, ...]``."""
        return stacked([member(z, pos, batch, **extra) for member in self.members])

    @property
    def atomic_energies(self) -> Callable[..., Tensor]:
        """Function that returns the mean contributions of the atoms ``[num_atoms]`` in eV.

        An ``AttributeError`` is raised if a member has no atomic energies.
        """
        functions = [cast(HasAtomicEnergies, member).atomic_energies for member in self.members]
        return lambda *args, **kwargs: stacked([function(*args, **kwargs) for function in functions]).mean(0)

    def fast_path(self, device: torch.device, half: bool) -> Callable[[Tensor, Tensor], Tensor] | None:
        """Function for energies and spreads of clusters of one size, if all members have a fast path."""
        paths = [member.fast_path(device, half) for member in self.members if isinstance(member, HasFastPath)]
        members = [path for path in paths if path is not None]
        if len(members) < len(self.members):
            return None
        return lambda z, pos: torch.stack(mean_and_spread(stacked([member(z, pos) for member in members])), dim=1)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({len(self.members)} x {type(self.members[0]).__name__})"


def stacked(values: Sequence[Tensor]) -> Tensor:
    """Values of the members ``[num_members, ...]``, in the highest precision among them."""
    dtype = reduce(torch.promote_types, (value.dtype for value in values))
    return torch.stack([value.to(dtype) for value in values])


def mean_and_spread(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and sample standard deviation over the first dimension of ``[num_members, ...]``."""
    return values.mean(0), values.std(0, correction=1)


def _check_alike(members: Sequence[nn.Module]):
    first = members[0]
    for number, member in enumerate(members[1:], start=1):
        kinds = [type(getattr(model, "scale", None)).__name__ for model in (first, member)]
        if kinds[0] != kinds[1]:
            raise InputError(
                f"members 0 ({type(first).__name__}) and {number} ({type(member).__name__}) of the ensemble do not "
                "predict the same quantity: their targets must agree"
            )
        domains = [domain_of(model) for model in (first, member)]
        elements = ["none known" if domain is None else domain.symbols for domain in domains]
        if elements[0] != elements[1]:
            raise InputError(
                f"members 0 and {number} of the ensemble were trained on different elements: {elements[0]} and "
                f"{elements[1]}; give members trained on the same data"
            )
        _check_zeros(first, member, number)
        charges = [state_of_training(model)[0] for model in (first, member)]
        if charges[0] != charges[1]:
            raise InputError(
                f"members 0 and {number} of the ensemble were trained on clusters of charge {charges[0]} and "
                f"{charges[1]}; give members trained on the same data"
            )


def _check_zeros(first: nn.Module, member: nn.Module, number: int):
    """Check that the energies of a member have the zero of the first, by their offsets and reference energies."""
    scales = [scale for model in (first, member) if isinstance(scale := getattr(model, "scale", None), EnergyScale)]
    domain = domain_of(first)
    if domain is None or len(scales) < 2:
        return
    z = torch.tensor(domain.atomic_numbers)
    with torch.no_grad():
        means = [scale(scale.offset.new_zeros(len(z)), z.to(scale.offset.device)).double().cpu() for scale in scales]
    apart = means[1] - means[0]
    largest = int(apart.abs().argmax())
    if float(apart[largest].abs()) > OTHER_ZERO:
        symbol = chemical_symbols[int(z[largest])]
        raise InputError(
            f"members 0 and {number} of the ensemble have different zeros of energy: {symbol} differs by "
            f"{float(apart[largest]):+.4g} eV per atom; give members trained on the same labels"
        )


def _common(domains: Sequence[TrainingDomain]) -> TrainingDomain:
    """Elements and charge of the first domain, and the sizes, compositions and geometries common to all."""
    domain = TrainingDomain()
    domain.elements.copy_(domains[0].elements)
    sizes = torch.stack([other.sizes for other in domains])
    domain.sizes.copy_(torch.stack([sizes[:, 0].max(), sizes[:, 1].min()]))
    domain.state.copy_(domains[0].state)
    if all(other.fraction_ranges for other in domains):
        fractions = torch.stack([other.fractions for other in domains])
        domain.fractions.copy_(torch.stack([fractions[:, 0].amax(0), fractions[:, 1].amin(0)]))
    ranges = [other.geometry for other in domains if other.geometry[0] > 0]
    if ranges:
        shared = torch.stack(ranges)
        domain.geometry.copy_(torch.cat([shared[:, :1].amax(0), shared[:, 1:].amin(0)]))
        domain.closest.copy_(torch.stack([other.closest for other in domains]).amax(0))
    return domain


OTHER_ZERO: float = 5.0
"""Difference between mean energies of an atom in two members, in eV, that no error of a model explains."""

CLUSTERS_AT_ONCE: int = 64  # number of clusters whose features are computed at a time


class LastLayerPosterior(nn.Module):
    r"""A :class:`DART` with a Gaussian posterior of the weights of its last layer.

    The energy is linear in :math:`\boldsymbol\phi = (\sum_i \mathbf{h}_i, N)`, the last hidden features summed over the
    cluster and its number of atoms. With errors of variance :math:`\sigma^2 N` and a flat prior, Bayesian linear
    regression on the training set (Bishop, *Pattern recognition and machine learning*, 2006, section 3.3) gives the
    covariance of the weights and the spread of an energy,

    .. math::
        \Sigma = \sigma^2 \Big(\sum_k \boldsymbol\phi_k \boldsymbol\phi_k^T / N_k\Big)^{-1}, \qquad
        s = \sqrt{\boldsymbol\phi^T \Sigma\, \boldsymbol\phi}.

    The energies are those of the model. The spread is large if the features point in a direction that is absent from
    the training set; it is not sensitive to differences between clusters that the hidden layers ignore.

    Args:
        model (DART): A trained model.
        covariance (Tensor or sequence): Covariance of the weights ``[features + 1, features + 1]`` in eV².

    Raises:
        InputError: If the model is not a :class:`DART`.
    """

    covariance: Tensor

    def __init__(self, model: nn.Module, covariance: Tensor | Sequence[Sequence[float]]):
        super().__init__()
        if not isinstance(model, DART):
            raise InputError(
                f"a last-layer posterior needs a DART, not {type(model).__name__}; train an ensemble instead"
            )
        self.model = model
        self.register_buffer("covariance", torch.as_tensor(covariance, dtype=torch.double))
        self.domain = model.domain

    def forward(self, z: Tensor | None, pos: Tensor, batch: Tensor | None = None) -> Tensor:
        """Energies ``[num_graphs]`` of the model in eV."""
        return self.model(z, pos, batch)

    def mean_and_spread(self, z: Tensor | None, pos: Tensor, batch: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energies and their standard deviations ``[num_graphs]`` in eV."""
        batch = one_cluster(pos) if batch is None else batch
        atoms = self.model.energies_and_features(z, pos, batch)
        sums = _sums(atoms.features, batch)
        variance = ((sums @ self.covariance) * sums).sum(1)
        energy = sum_over_clusters(atoms.energy, batch)
        return energy, variance.clamp(min=0.0).sqrt().to(energy.dtype)

    def atomic_energies(self, z: Tensor | None, pos: Tensor, batch: Tensor | None = None) -> Tensor:
        """Contributions of the atoms ``[num_atoms]`` in eV."""
        return self.model.atomic_energies(z, pos, batch)

    def features(self, z: Tensor | None, pos: Tensor, batch: Tensor | None = None) -> Tensor:
        """Features of the atoms ``[num_atoms, num_features]``."""
        return self.model.features(z, pos, batch)

    @classmethod
    @torch.no_grad()
    def fit_blocks(
        cls, model: nn.Module, blocks: Iterable[tuple[Tensor, Tensor, Tensor]], noise: float
    ) -> "LastLayerPosterior":
        """Fit the posterior of a trained model to its training set, given in blocks.

        Args:
            model: The model.
            blocks: Atomic numbers ``[num_atoms]``, positions ``[num_atoms, 3]`` in Å and cluster offsets
                ``[num_graphs + 1]`` of each block; only one block is in memory at a time.
            noise: Standard deviation σ of the errors in eV, for a cluster of one atom.
        """
        posterior = cls(model, torch.zeros(0, 0))
        precision: Tensor | float = 0.0
        for z, pos, ptr in blocks:
            for atoms, part in whole_clusters(ptr, CLUSTERS_AT_ONCE, power=0):
                batch = ptr_to_batch(part)
                sums = _sums(posterior.model.features(z[atoms], pos[atoms], batch), batch)
                precision = precision + (sums / part.diff()[:, None]).T @ sums
        scale = torch.as_tensor(precision).diagonal().clamp(min=1e-12).rsqrt()  # to a unit diagonal before inversion
        scaled = torch.as_tensor(precision) * scale[:, None] * scale
        inverse = torch.linalg.pinv(scaled, hermitian=True, rtol=1e-10)
        posterior.covariance = noise**2 * inverse * scale[:, None] * scale
        return posterior


def _sums(features: Tensor, batch: Tensor) -> Tensor:
    """Sums of the features over each cluster, and its size, ``[num_graphs, features + 1]`` in double precision."""
    ones = torch.ones_like(features[:, :1])
    return sum_over_clusters(torch.cat([features, ones], dim=1).double(), batch)
