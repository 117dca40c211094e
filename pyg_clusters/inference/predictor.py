"""Predictions for many frames of any sizes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from pyg_clusters.errors import InputError
from pyg_clusters.inference.fused_dart import FusedDART
from pyg_clusters.models.dart import DART
from pyg_clusters.models.domain import Domain
from pyg_clusters.models.ensemble import Ensemble, mean_and_spread
from pyg_clusters.models.extra_arguments import check_extra_arguments, extra_arguments

Array = np.ndarray | Tensor

ATOMS_AT_ONCE: int = 8192
"""Default number of atoms in a batch: its working set stays in the cache of a processor."""


@dataclass
class Prediction:
    """Predictions in the order of the input."""

    energy: Tensor
    """Energies ``[num_frames]`` in eV."""
    spread: Tensor | None = None
    """Standard deviations ``[num_frames]`` in eV, of a model that gives them (an ensemble, a posterior)."""


class Predictor:
    """Predicts the energies of many frames at once.

    Frames are gathered by size into batches without padding; results come in the order of the input. Positions are
    centred in their own precision before they are cast to that of the model, so that a trajectory far off the origin
    loses nothing.

    Args:
        model: A model that is called as ``model(z, pos, batch)`` and returns ``[num_graphs]`` in eV. It is put into
            evaluation mode, and onto the device if one is named. Weights that are changed in place are followed. If it
            has a method ``mean_and_spread`` (:class:`~pyg_clusters.models.Ensemble`), that is called instead.
        device: Where to compute; by default where the model is.
        max_atoms: Bound on the atoms of a batch.
        transform: For a model that needs a graph: makes it, cluster by cluster, as it did for the training
            (:class:`~pyg_clusters.transforms.ShellGraph`, say).

    Raises:
        InputError: If there is no such device, or the model needs what it is not given.

    Example:
        >>> import torch
        >>> from pyg_clusters.models import DART
        >>> z, pos = torch.full((5, 4), 31), torch.rand(5, 4, 3) * 9
        >>> Predictor(DART())(z, pos).energy.shape
        torch.Size([5])
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device | str | None = None,
        max_atoms: int = ATOMS_AT_ONCE,
        transform: Callable[[Data], Data] | None = None,
    ):
        first = next(model.parameters(), torch.empty(0))
        self.device = first.device if device is None else usable_device(device)
        self.model = model.to(self.device).eval()
        self.max_atoms = max_atoms
        self.transform = transform
        if transform is None:
            check_extra_arguments(model, (), "give Predictor a transform that makes it")
        self._energies: Callable[[Tensor, Tensor], Tensor] = self._energies_by_forward
        if transform is not None:
            self._energies = self._energies_by_graphs
        else:
            self._energies = _fused(model) or self._energies

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights, that of the results."""
        return next((weight.dtype for weight in self.model.parameters()), torch.get_default_dtype())

    @torch.no_grad()
    def __call__(self, z: Array | Sequence[Atoms], pos: Array | None = None, ptr: Array | None = None) -> Prediction:
        """Predicts frames given as flat arrays, as arrays of one size, or as a list of ASE ``Atoms``.

        Args:
            z: Atomic numbers ``[num_atoms]`` with ``ptr``, ``[num_frames, num_atoms]`` without; or the list.
            pos: Positions in Å, ``[num_atoms, 3]`` or ``[num_frames, num_atoms, 3]``.
            ptr: Offsets of the frames ``[num_frames + 1]``.

        Raises:
            ValueError: If the shapes do not belong together.
            InputError: If an element occurs that the model was not trained on, or a position is not finite.
        """
        z, pos, ptr = _flat_tensors(z, pos, ptr)
        _check_finite(pos, ptr)
        self._check_elements(z)
        energy = self._room(ptr.numel() - 1)
        for frames, size in self._batches(ptr):
            atoms = ptr[frames][:, None] + torch.arange(size)
            positions = pos[atoms.flatten()].view(-1, size, 3)
            positions = (positions - positions.mean(dim=1, keepdim=True)).to(self.device, self.dtype)
            found = self._energies(z[atoms].to(self.device), positions)
            if found.shape != energy[frames].shape:
                name, shape = type(self.model).__name__, list(found.shape)
                raise InputError(f"{name} returns {shape} for {frames.numel()} frames: it is no model of energies")
            energy[frames] = found.to("cpu")
        return Prediction(*energy.unbind(1)) if self.gives_spread else Prediction(energy)

    @property
    def gives_spread(self) -> bool:
        """Whether the model tells how sure it is."""
        return hasattr(self.model, "mean_and_spread")

    def _room(self, number: int) -> Tensor:
        """For what the model says of so many frames or atoms: a column of means and one of spreads, if it has them."""
        return torch.empty((number, 2) if self.gives_spread else (number,), dtype=self.dtype)

    def _call(self, *arguments: Tensor, **extra: Tensor) -> Tensor:
        if not self.gives_spread:
            return self.model(*arguments, **extra)
        return torch.stack(self.model.mean_and_spread(*arguments, **extra), dim=1)

    def _batches(self, ptr: Tensor) -> Iterator[tuple[Tensor, int]]:
        """Numbers of frames of one size, at most ``max_atoms`` atoms at a time."""
        sizes = ptr.diff()
        for size in torch.unique(sizes).tolist():
            frames = (sizes == size).nonzero().flatten()
            for part in frames.split(max(1, self.max_atoms // size)):
                yield part, size

    def _energies_by_forward(self, z: Tensor, pos: Tensor) -> Tensor:
        num_frames, size = z.shape
        batch = torch.arange(num_frames, device=z.device).repeat_interleave(size)
        return self._call(z.flatten(), pos.flatten(0, 1), batch)

    def _energies_by_graphs(self, z: Tensor, pos: Tensor) -> Tensor:
        assert self.transform is not None
        graphs = [self.transform(Data(z=numbers, pos=positions)) for numbers, positions in zip(z, pos, strict=True)]
        batch = Batch.from_data_list(graphs)
        extra = {name: batch[name] for name in extra_arguments(self.model) if name in batch}
        check_extra_arguments(self.model, extra, f"{self.transform} does not make it")
        return self._call(batch.z, batch.pos, batch.batch, **extra)

    def _check_elements(self, z: Tensor):
        domain = domain_of(self.model)
        if domain is None:
            return
        unknown = sorted(set(torch.unique(z).tolist()) - set(domain.atomic_numbers))
        if unknown:
            names, known = _symbols(unknown), _symbols(domain.atomic_numbers)
            raise InputError(f"the model was trained on {known} and knows nothing of {names}")


def _fused(model: nn.Module) -> Callable[[Tensor, Tensor], Tensor] | None:
    """The fast path of a model, where there is one."""
    if type(model) is DART and len(model.interaction) > 1:
        return FusedDART(model)
    if not isinstance(model, Ensemble):
        return None
    members = [fused for member in model.members if (fused := _fused(member)) is not None]
    if len(members) < len(model.members):
        return None
    return lambda z, pos: torch.stack(mean_and_spread(torch.stack([member(z, pos) for member in members])), dim=1)


def domain_of(model: nn.Module) -> Domain | None:
    """What a model knows of the elements and sizes that it was trained on, if anything."""
    domain = getattr(model, "domain", None)
    return domain if isinstance(domain, Domain) and domain.known else None


def usable_device(device: torch.device | str) -> torch.device:
    """The device, if there is one of that name.

    Raises:
        InputError: If there is none.
    """
    try:
        device = torch.device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!s} cannot be used ({str(error).splitlines()[0][:120]})") from error
    return device


def _check_finite(pos: Tensor, ptr: Tensor):
    wrong = (~pos.isfinite().all(dim=1)).nonzero()
    if wrong.numel():
        atom = int(wrong[0])
        frame = int(torch.searchsorted(ptr, atom, right=True)) - 1
        raise InputError(
            f"frame {frame}: atom {atom - int(ptr[frame])} is at {pos[atom].tolist()}, which is no position"
        )


def _symbols(atomic_numbers: Sequence[int]) -> str:
    return ", ".join(chemical_symbols[number] for number in atomic_numbers)


def _flat_tensors(z: Array | Sequence[Atoms], pos: Array | None, ptr: Array | None) -> tuple[Tensor, Tensor, Tensor]:
    if pos is None and isinstance(z, np.ndarray | Tensor):
        raise ValueError("positions are needed beside atomic numbers (or a list of ASE Atoms instead of both)")
    if pos is None:
        frames = list(z)
        z = np.concatenate([atoms.numbers for atoms in frames]) if frames else np.zeros(0, dtype=np.int64)
        pos = np.concatenate([atoms.positions for atoms in frames]) if frames else np.zeros((0, 3))
        ptr = np.cumsum([0, *(len(atoms) for atoms in frames)])
    z, pos = torch.as_tensor(z), torch.as_tensor(pos)
    if ptr is None:
        if z.dim() != 2 or pos.shape != (*z.shape, 3):
            raise ValueError(
                f"without ptr, z [frames, atoms] and pos [frames, atoms, 3] are needed, got {_shapes(z, pos)}"
            )
        ptr = torch.arange(z.size(0) + 1) * z.size(1)
        z, pos = z.flatten(), pos.flatten(0, 1)
    ptr = torch.as_tensor(ptr).long()
    ends = ptr[[0, -1]].tolist() if ptr.numel() else []
    if pos.shape != (z.numel(), 3) or ends != [0, z.numel()] or bool((ptr.diff() < 1).any()):
        raise ValueError(
            "z [atoms], pos [atoms, 3] and increasing ptr [frames + 1] from 0 to atoms are needed, got "
            f"{_shapes(z, pos)} and ptr with ends {ends}"
        )
    return z.long().cpu(), pos.cpu(), ptr.cpu()


def _shapes(z: Tensor, pos: Tensor) -> str:
    return f"z {list(z.shape)} and pos {list(pos.shape)}"
