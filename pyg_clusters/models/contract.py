"""Contract of models: methods, additional arguments, and supported elements."""

import copy
import inspect
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from pyg_clusters.errors import InputError
from pyg_clusters.models.training_domain import domain_of


@runtime_checkable
class ClusterModel(Protocol):
    """A model of the energies of clusters, or of a value per atom.

    Only ``forward`` is required: any :class:`torch.nn.Module` called as ``model(z, pos, batch)`` can be trained,
    saved, and used by :class:`~pyg_clusters.inference.Predictor`, :class:`~pyg_clusters.structures.ModelCalculator`
    and the command line. :func:`~pyg_clusters.testing.validate_model` checks its symmetries and its batching. A model
    can be saved if it keeps the arguments of its constructor as attributes of the same names.

    A model may also have

    - the methods of :class:`HasAtomicEnergies`, :class:`HasFeatures`, :class:`HasSpread` and :class:`HasFastPath`;
    - ``scale``: an :class:`~pyg_clusters.nn.EnergyScale`, fitted to the training set before the first step;
    - ``domain``: a :class:`~pyg_clusters.models.TrainingDomain` with elements, sizes and geometries of the training
      set.
    """

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor | None = None) -> Tensor:
        """Energies ``[num_graphs]`` in eV, or values ``[num_atoms]``.

        Args:
            z: Atomic numbers ``[num_atoms]``.
            pos: Positions ``[num_atoms, 3]`` in Å.
            batch: Cluster index of each atom ``[num_atoms]``; the models of this package treat all atoms as one
                cluster if it is not given.
        """
        ...


@runtime_checkable
class HasAtomicEnergies(Protocol):
    """A model whose energy is a sum over atoms."""

    def atomic_energies(self, z: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
        """Contributions of the atoms ``[num_atoms]`` in eV; they sum to the output of ``forward``."""
        ...


@runtime_checkable
class HasFeatures(Protocol):
    """A model with learned features of atoms, which the strategy ``diverse`` uses to compare clusters."""

    def features(self, z: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
        """Features ``[num_atoms, num_features]``."""
        ...


@runtime_checkable
class HasSpread(Protocol):
    """A model that estimates the uncertainty of its predictions."""

    def mean_and_spread(self, z: Tensor, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Prediction and its standard deviation, each like the output of ``forward``."""
        ...


@runtime_checkable
class HasFastPath(Protocol):
    """A model with a faster implementation for many clusters of one size, without gradients."""

    def fast_path(self, device: torch.device, half: bool) -> Callable[[Tensor, Tensor], Tensor] | None:
        """Function of ``z [num_graphs, num_atoms]`` and ``pos [num_graphs, num_atoms, 3]``.

        The function returns energies ``[num_graphs]`` in eV or, for a model with ``mean_and_spread``, energies and
        spreads ``[num_graphs, 2]``.

        Args:
            device: Device of the clusters.
            half: Whether half precision may be used.

        Returns:
            The function, or ``None`` if there is none for this device and precision.
        """
        ...


def extra_arguments(model: nn.Module) -> dict[str, bool]:
    """Names of the arguments of ``model(z, pos, batch, ...)`` after the first three, and whether each is required.

    Attributes of a data set with these names (``x``, ``edge_index``, a custom descriptor) are passed to the model. An
    ensemble has the arguments of its members.
    """
    model = getattr(model, "members", [model])[0]
    parameters = list(inspect.signature(model.forward).parameters.values())
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: p.default is p.empty for p in parameters[3:] if p.kind in named}


def check_extra_arguments(model: nn.Module, present: Container[str], remedy: str):
    """Check that all required arguments of a model are available.

    Raises:
        InputError: If an argument is missing; the message ends with the remedy.
    """
    missing = [name for name, needed in extra_arguments(model).items() if needed and name not in present]
    if missing:
        raise InputError(f"{type(model).__name__} requires {', '.join(missing)}: {remedy}")


@contextmanager
def evaluation_mode(model: object) -> Iterator[None]:
    """Evaluate a model that is in training mode, as between two epochs, in evaluation mode; its mode is restored."""
    training = []
    if isinstance(model, nn.Module) and model.training:
        training = [module for module in model.modules() if module.training]
    for module in training:  # as by eval(), which the modules of torch.export do not have
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


UNCHANGED: float = 1e-6  # smaller changes of the output, relative to the change by other positions, are ignored

_known: WeakKeyDictionary[nn.Module, dict[tuple[int, ...], bool]] = WeakKeyDictionary()


def element_problem(model: nn.Module, numbers: Iterable[int]) -> str | None:
    """Reason why a model cannot be applied to clusters of these elements (atomic numbers), or ``None``.

    Either the model was not trained on them, or it does not distinguish them.
    """
    numbers, domain = list(numbers), domain_of(model)
    return (domain.problem(numbers) if domain else None) or blind_problem(model, numbers)


def blind_problem(model: nn.Module, numbers: Iterable[int]) -> str | None:
    """Reason why a model cannot be applied to clusters of several elements (atomic numbers), or ``None``.

    A model that only uses counts and distances predicts the same energy for every arrangement of the elements.
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
        f"{type(model).__name__} does not tell elements apart (exchanging atoms of {symbols} changes nothing): for "
        "several elements use SmoothDART or AlloyDART with elements, HDNN, or a LayeredModel with embedding: both; "
        "for shieldings NodeSchNet, or ShieldingDART with elements"
    )


@torch.no_grad()
def is_blind(model: nn.Module, elements: Iterable[int]) -> bool:
    """Whether exchanging atoms of two elements (atomic numbers) leaves the output of a model unchanged.

    The model is evaluated on a cluster of eight atoms at two sets of positions. A model whose output does not depend
    on the positions either (its last layer may be initialised to zero) is not considered blind. A model that requires
    further arguments or single precision cannot be tested and is not considered blind either.
    """
    if any(extra_arguments(model).values()):
        return False
    copied = copy.deepcopy(model).eval().double().cpu()
    generator = torch.Generator().manual_seed(0)
    corners = 2.6 * torch.cartesian_prod(*[torch.arange(2.0, dtype=torch.double)] * 3)
    pos, other_pos = (corners + 0.6 * torch.rand(8, 3, generator=generator, dtype=torch.double) for _ in range(2))
    pos[0], other_pos[0] = pos[0] - 2.0, other_pos[0] - 1.0  # a distant atom, so that outer shells are not empty
    batch = torch.zeros(8, dtype=torch.long)
    for first, second in pairwise(sorted(elements)):
        z = torch.tensor([first, second, second, second, first, second, first, first])
        try:
            value, other_value = copied(z, pos, batch), copied(z, other_pos, batch)
            # Several arrangements, as one of them may be equivalent by symmetry.
            exchanged = max(_max_difference(value, copied(z.roll(steps), pos, batch)) for steps in range(1, 8))
        except (ValueError, IndexError, RuntimeError):  # reported by another check, or not a model in double precision
            continue
        if exchanged <= UNCHANGED * _max_difference(value, other_value):
            return _max_difference(value, other_value) > 0
    return False


def _max_difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())
