"""Predictions for many frames of any sizes."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from pyg_clusters.errors import InputError
from pyg_clusters.frames import FrameBlock, Frames, check_block
from pyg_clusters.inference.fused_dart import FusedDART
from pyg_clusters.models.dart import DART
from pyg_clusters.models.domain import Domain
from pyg_clusters.models.extra_arguments import check_extra_arguments, extra_arguments

Array = np.ndarray | Tensor

ATOMS_AT_ONCE: int = 8192
"""Default number of atoms in a batch on a processor: its working set stays in the cache."""

ATOMS_AT_ONCE_ON_GPU: int = 1 << 18
"""Default number of atoms in a batch on any other device."""

PAIRS_PER_ATOM: int = 128
"""A batch has at most so many pairs of atoms for each atom that it may have: larger clusters come fewer at a time."""


@dataclass
class Prediction:
    """Predictions in the order of the input."""

    energy: Tensor
    """Energies ``[num_frames]`` in eV."""


class Predictor:
    """Predicts the energies of many frames at once.

    Frames are gathered by size into batches without padding, bounded in atoms and in pairs of atoms; results come in
    the order of the input. Positions are centred in their own precision before they are cast to that of the model, so
    that a trajectory far off the origin loses nothing. A batch that does not fit in the memory of the device is halved,
    and so are those after it.

    Args:
        model: A model that is called as ``model(z, pos, batch)`` and returns ``[num_graphs]`` in eV. It is put into
            evaluation mode, and onto the device if one is named. Weights that are changed in place are followed.
        device: Where to compute; by default where the model is.
        max_atoms: Bound on the atoms of a batch; by default what suits the device. Pairs of atoms are bounded to
            :data:`PAIRS_PER_ATOM` times as many.
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
        max_atoms: int | None = None,
        transform: Callable[[Data], Data] | None = None,
    ):
        first = next(model.parameters(), torch.empty(0))
        self.device = first.device if device is None else usable_device(device)
        self.model = model.to(self.device).eval()
        by_device = ATOMS_AT_ONCE if self.device.type == "cpu" else ATOMS_AT_ONCE_ON_GPU
        self.max_atoms = by_device if max_atoms is None else max_atoms
        self.transform = transform
        if transform is None:
            check_extra_arguments(model, (), "give Predictor a transform that makes it")
        self._energies: Callable[[Tensor, Tensor], Tensor] = self._energies_by_forward
        if transform is not None:
            self._energies = self._energies_by_graphs
        elif type(model) is DART and len(model.interaction) > 1:
            self._energies = FusedDART(model)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights, that of the results."""
        return next((weight.dtype for weight in self.model.parameters()), torch.get_default_dtype())

    @torch.no_grad()
    def __call__(
        self, z: Array | Sequence[Atoms] | Frames, pos: Array | None = None, ptr: Array | None = None
    ) -> Prediction:
        """Predicts frames given as flat arrays, as arrays of one size, as a list of ASE ``Atoms``, or as files.

        Args:
            z: Atomic numbers ``[num_atoms]`` with ``ptr``, ``[num_frames, num_atoms]`` without; or the list; or
                :class:`~pyg_clusters.frames.Frames`, of which no more than some blocks are held. A frame that cannot
                be used stops it; where they are to be skipped its energy is not-a-number.
            pos: Positions in Å, ``[num_atoms, 3]`` or ``[num_frames, num_atoms, 3]``.
            ptr: Offsets of the frames ``[num_frames + 1]``.

        Raises:
            ValueError: If the shapes do not belong together.
            InputError: If an element occurs that the model was not trained on, a position is not finite, or a cluster
                does not fit in the memory of the device.
        """
        if isinstance(z, Frames):
            parts = [self._energies_of_block(block, z.on_bad) for block in z]
            return Prediction(torch.cat(parts) if parts else torch.empty(0, dtype=self.dtype))
        z, pos, ptr = _flat_tensors(z, pos, ptr)
        _check_finite(pos, ptr)
        self._check_elements(z)
        energy = torch.empty(ptr.numel() - 1, dtype=self.dtype)
        for frames, _, numbers, positions, _ in self._batches(z, pos, ptr):
            found = self._in_memory(self._energies_on_device, numbers, positions)
            if found.shape != frames.shape:
                name, shape = type(self.model).__name__, list(found.shape)
                raise InputError(f"{name} returns {shape} for {frames.numel()} frames: it is no model of energies")
            energy[frames] = found
        return Prediction(energy)

    def _energies_of_block(self, block: FrameBlock, on_bad: Literal["stop", "skip"]) -> Tensor:
        """Energies of the frames of a block, bad ones among them."""
        domain = domain_of(self.model)
        good, bad = check_block(
            block,
            atomic_numbers=domain.atomic_numbers if domain else None,
            size_range=domain.size_range if domain else None,
            on_bad=on_bad,
        )
        numbers = torch.tensor([*good.number.tolist(), *(frame.number for frame in bad)])
        energy = torch.full((numbers.numel(),), math.nan, dtype=self.dtype)
        energy[: len(good)] = self(good.z, good.pos, good.ptr).energy
        return energy[numbers.argsort()]

    def _batches(
        self, z: Tensor, pos: Tensor, ptr: Tensor, values: Mapping[str, Tensor] | None = None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]]:
        """Batches of frames of one size, within the bounds on atoms and pairs of atoms.

        Yields:
            Numbers of the frames, of their atoms ``[num_frames * size]``, then atomic numbers ``[num_frames, size]``,
            centred positions ``[num_frames, size, 3]`` and values of atoms ``[num_frames, size, ...]``.
        """
        sizes = ptr.diff()
        for size in torch.unique(sizes).tolist():
            waiting = (sizes == size).nonzero().flatten()
            while waiting.numel():
                fit = min(self.max_atoms // size, self.max_atoms * PAIRS_PER_ATOM // size**2)
                frames, waiting = waiting[: max(1, fit)], waiting[max(1, fit) :]
                atoms = (ptr[frames][:, None] + torch.arange(size)).flatten()
                positions = pos[atoms].view(-1, size, 3)
                positions = positions - positions.mean(dim=1, keepdim=True)
                chosen = {name: value[atoms].unflatten(0, (-1, size)) for name, value in (values or {}).items()}
                yield frames, atoms, z[atoms].view(-1, size), positions, chosen

    def _in_memory(self, compute: Callable[..., Tensor], *batch: Tensor) -> Tensor:
        """Results of a batch, in parts where its whole does not fit in the memory of the device.

        Raises:
            InputError: If not even one frame fits.
        """
        num_frames, size = batch[0].shape
        fit, first = num_frames, 0
        parts: list[Tensor] = []
        while first < num_frames:
            part = [value[first : first + fit] for value in batch]
            with suppress(torch.OutOfMemoryError):
                parts.append(compute(*part))
                first += fit
                continue
            if fit == 1:
                raise InputError(
                    f"a cluster of {size} atoms does not fit in the memory of {self.device}; use another --device"
                )
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            fit = (fit + 1) // 2
            self.max_atoms = min(self.max_atoms, fit * size)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _energies_on_device(self, z: Tensor, pos: Tensor) -> Tensor:
        return self._energies(z.to(self.device), pos.to(self.device, self.dtype)).to("cpu")

    def _energies_by_forward(self, z: Tensor, pos: Tensor) -> Tensor:
        num_frames, size = z.shape
        batch = torch.arange(num_frames, device=z.device).repeat_interleave(size)
        return self.model(z.flatten(), pos.flatten(0, 1), batch)

    def _energies_by_graphs(self, z: Tensor, pos: Tensor) -> Tensor:
        assert self.transform is not None
        graphs = [self.transform(Data(z=numbers, pos=positions)) for numbers, positions in zip(z, pos, strict=True)]
        batch = Batch.from_data_list(graphs)
        extra = {name: batch[name] for name in extra_arguments(self.model) if name in batch}
        check_extra_arguments(self.model, extra, f"{self.transform} does not make it")
        return self.model(batch.z, batch.pos, batch.batch, **extra)

    def _check_elements(self, z: Tensor):
        domain = domain_of(self.model)
        if domain is None:
            return
        unknown = sorted(set(torch.unique(z).tolist()) - set(domain.atomic_numbers))
        if unknown:
            names, known = _symbols(unknown), _symbols(domain.atomic_numbers)
            raise InputError(f"the model was trained on {known} and knows nothing of {names}")


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
