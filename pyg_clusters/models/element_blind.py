"""Models that do not tell elements apart."""

import copy
from collections.abc import Iterable
from itertools import pairwise
from weakref import WeakKeyDictionary

import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from pyg_clusters.errors import InputError
from pyg_clusters.models.contract import extra_arguments
from pyg_clusters.models.last_layer import LastLayerPosterior
from pyg_clusters.models.training_domain import domain_of

UNCHANGED: float = 1e-6
"""A change of the output, as a share of what moving the atoms changes, that is none."""

_known: WeakKeyDictionary[nn.Module, dict[tuple[int, ...], bool]] = WeakKeyDictionary()


def element_problem(model: nn.Module, numbers: Iterable[int]) -> str | None:
    """Reason why a model cannot do clusters of some elements, if any: elements it was not trained on, or blindness.

    Args:
        model: Called as ``model(z, pos, batch)``.
        numbers: Atomic numbers of the elements that occur.
    """
    numbers, domain = list(numbers), domain_of(model)
    return (domain.problem(numbers) if domain else None) or blind_problem(model, numbers)


def blind_problem(model: nn.Module, numbers: Iterable[int]) -> str | None:
    """Reason why a model cannot do clusters of several elements, if so.

    A model of counts and distances alone gives every arrangement of the elements the same energy.

    Args:
        model: Called as ``model(z, pos, batch)``.
        numbers: Atomic numbers of the elements that occur.
    """
    elements = tuple(sorted(set(numbers)))
    if len(elements) < 2:
        return None
    known = _known.setdefault(model, {})
    if elements not in known:
        known[elements] = is_blind(model, elements)
    if not known[elements]:
        return None
    symbols = ", ".join(chemical_symbols[number] for number in elements)
    return (
        f"{type(model).__name__} does not tell elements apart (to exchange atoms of {symbols} changes nothing): for "
        "several elements take SmoothDART or AlloyDART with elements, HDNN, or a LayeredModel with embedding: both; "
        "for shieldings NodeSchNet"
    )


@torch.no_grad()
def is_blind(model: nn.Module, elements: Iterable[int]) -> bool:
    """Whether exchanging the atoms of two elements changes nothing that a model gives.

    It is tried on a cluster of eight atoms, beside one at other positions: a model that does not change with these
    either, as one whose last layer starts from zero, is not taken for blind; nor is one that cannot be tried, because
    it must be given more than positions.

    Args:
        model: Called as ``model(z, pos, batch)``.
        elements: Atomic numbers, at least two.
    """
    if isinstance(model, LastLayerPosterior):
        model = model.model
    if any(extra_arguments(model).values()):
        return False
    tried = copy.deepcopy(model).eval().double().cpu()
    generator = torch.Generator().manual_seed(0)
    corners = 2.6 * torch.cartesian_prod(*[torch.arange(2.0, dtype=torch.double)] * 3)
    pos, moved = (corners + 0.6 * torch.rand(8, 3, generator=generator, dtype=torch.double) for _ in range(2))
    pos[0], moved[0] = pos[0] - 2.0, moved[0] - 1.0  # an end, whatever the radii are
    batch = torch.zeros(8, dtype=torch.long)
    for first, second in pairwise(sorted(elements)):
        z = torch.tensor([first, second, second, second, first, second, first, first])
        try:
            here, there = tried(z, pos, batch), tried(z, moved, batch)
            # Several arrangements: a symmetry of the cluster may bring one of them back.
            exchanged = max(_apart(here, tried(z.roll(steps), pos, batch)) for steps in range(1, 8))
        except (InputError, ValueError, IndexError):  # another check says what it cannot do
            continue
        if exchanged <= UNCHANGED * _apart(here, there):
            return _apart(here, there) > 0
    return False


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())
