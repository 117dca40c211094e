"""Deep ensembles: the mean of several models, and how far they are apart."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import cast

import torch
from torch import Tensor, nn

from pyg_clusters.errors import InputError
from pyg_clusters.models.contract import HasAtomicEnergies, HasFastPath
from pyg_clusters.models.training_domain import TrainingDomain, domain_of, state_of_training


class Ensemble(nn.Module):
    r"""Several models trained alike from different seeds (Lakshminarayanan, Pritzel, Blundell, `"Simple and scalable
    predictive uncertainty estimation using deep ensembles" <https://arxiv.org/abs/1612.01474>`_, 2017).

    It is called as its members are and returns their mean; :meth:`mean_and_spread` gives the standard deviation over
    the members besides,

    .. math::
        s^2 = \frac{1}{M - 1} \sum_m (E_m - \bar E)^2.

    The spread tells what the data leave open between models of this kind. An error that all members make is not in it.

    Args:
        members (sequence of Module): At least two models of the same elements and the same kind of target.

    Raises:
        InputError: If there are fewer than two, or they do not belong together.

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
        """Mean over the members, of the shape that each returns; the arguments are those of a member."""
        return self.of_members(z, pos, batch, **extra).mean(0)

    def mean_and_spread(
        self, z: Tensor | None, pos: Tensor | None, batch: Tensor | None = None, **extra: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over the members, each of the shape that a member returns, in its unit."""
        return mean_and_spread(self.of_members(z, pos, batch, **extra))

    def of_members(self, z: Tensor | None, pos: Tensor | None, batch: Tensor | None = None, **extra: Tensor) -> Tensor:
        """Predictions of the members, ``[num_members, ...]``."""
        return stacked([member(z, pos, batch, **extra) for member in self.members])

    @property
    def atomic_energies(self) -> Callable[..., Tensor]:
        """Mean shares of the atoms ``[num_atoms]`` in eV, where the members have them."""
        functions = [cast(HasAtomicEnergies, member).atomic_energies for member in self.members]
        return lambda *arguments: stacked([function(*arguments) for function in functions]).mean(0)

    def fast_path(self, device: torch.device, half: bool) -> Callable[[Tensor, Tensor], Tensor] | None:
        """Energies and spreads of clusters of one size, if all members have a fast path."""
        paths = [member.fast_path(device, half) for member in self.members if isinstance(member, HasFastPath)]
        members = [path for path in paths if path is not None]
        if len(members) < len(self.members):
            return None
        return lambda z, pos: torch.stack(mean_and_spread(stacked([member(z, pos) for member in members])), dim=1)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({len(self.members)} x {type(self.members[0]).__name__})"


def stacked(values: Sequence[Tensor]) -> Tensor:
    """Values of the members ``[num_members, ...]``, in the highest precision that one of them has."""
    dtype = reduce(torch.promote_types, (value.dtype for value in values))
    return torch.stack([value.to(dtype) for value in values])


def mean_and_spread(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (over one less than the number of members) of ``[num_members, ...]``."""
    return values.mean(0), values.std(0, correction=1)


def _check_alike(members: Sequence[nn.Module]):
    first = members[0]
    for number, member in enumerate(members[1:], start=1):
        kinds = [type(getattr(model, "scale", None)).__name__ for model in (first, member)]
        if kinds[0] != kinds[1]:
            raise InputError(
                f"members 0 ({type(first).__name__}) and {number} ({type(member).__name__}) of the ensemble do not "
                "predict the same: their targets must be alike"
            )
        elements = [_elements(model) for model in (first, member)]
        if elements[0] != elements[1]:
            raise InputError(
                f"members 0 and {number} of the ensemble were trained on other elements: {elements[0]} and "
                f"{elements[1]}; give members of the same data"
            )
        charges = [state_of_training(model)[0] for model in (first, member)]
        if charges[0] != charges[1]:
            raise InputError(
                f"members 0 and {number} of the ensemble were trained on clusters of charge {charges[0]} and "
                f"{charges[1]}; give members of the same data"
            )


def _elements(model: nn.Module) -> str:
    domain = domain_of(model)
    return "none known" if domain is None else domain.symbols


def _common(domains: Sequence[TrainingDomain]) -> TrainingDomain:
    """Elements of the first, and the sizes that all of them have seen."""
    domain = TrainingDomain()
    domain.elements.copy_(domains[0].elements)
    sizes = torch.stack([other.sizes for other in domains])
    domain.sizes.copy_(torch.stack([sizes[:, 0].max(), sizes[:, 1].min()]))
    domain.state.copy_(domains[0].state)
    ranges = [other.geometry for other in domains if other.geometry[0] > 0]
    if ranges:
        shared = torch.stack(ranges)
        domain.geometry.copy_(torch.cat([shared[:, :1].amax(0), shared[:, 1:].amin(0)]))
    return domain
