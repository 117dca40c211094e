"""Predictions for many frames of any sizes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from torch import Tensor, nn

from pyg_clusters.errors import InputError
from pyg_clusters.inference.fused_dart import FusedDART
from pyg_clusters.models.dart import DART

Array = np.ndarray | Tensor

ATOMS_AT_ONCE: int = 8192
"""Default number of atoms in a batch: its working set stays in the cache of a processor."""


@dataclass
class Prediction:
    """Predictions in the order of the input."""

    energy: Tensor
    """Energies ``[num_frames]`` in eV."""


class Predictor:
    """Predicts the energies of many frames at once.

    Frames are gathered by size into batches without padding; results come in the order of the input. Positions are
    centred in their own precision before they are cast to that of the model, so that a trajectory far off the origin
    loses nothing.

    Args:
        model: A model that is called as ``model(z, pos, batch)`` and returns ``[num_graphs]`` in eV. It is put into
            evaluation mode.
        device: Where to compute; CUDA where there is a device, else the CPU.
        max_atoms: Bound on the atoms of a batch.

    Example:
        >>> import torch
        >>> from pyg_clusters.models import DART
        >>> z, pos = torch.full((5, 4), 31), torch.rand(5, 4, 3) * 9
        >>> Predictor(DART())(z, pos).energy.shape
        torch.Size([5])
    """

    def __init__(self, model: nn.Module, device: torch.device | str | None = None, max_atoms: int = ATOMS_AT_ONCE):
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = model.to(self.device).eval()
        self.max_atoms = max_atoms
        self.dtype = next((weight.dtype for weight in model.parameters()), torch.get_default_dtype())
        self._energies: Callable[[Tensor, Tensor], Tensor]
        self._energies = FusedDART(model) if isinstance(model, DART) else self._energies_by_forward

    @torch.no_grad()
    def __call__(self, z: Array | Sequence[Atoms], pos: Array | None = None, ptr: Array | None = None) -> Prediction:
        """Predicts frames given as flat arrays, as arrays of one size, or as a list of ASE ``Atoms``.

        Args:
            z: Atomic numbers ``[num_atoms]`` with ``ptr``, ``[num_frames, num_atoms]`` without; or the list.
            pos: Positions in Å, ``[num_atoms, 3]`` or ``[num_frames, num_atoms, 3]``.
            ptr: Offsets of the frames ``[num_frames + 1]``.

        Raises:
            ValueError: If the shapes do not belong together.
            InputError: If an element occurs that the model was not trained on.
        """
        z, pos, ptr = _flat_tensors(z, pos, ptr)
        self._check_elements(z)
        energy = torch.empty(ptr.numel() - 1, dtype=self.dtype)
        for frames, size in self._batches(ptr):
            atoms = ptr[frames][:, None] + torch.arange(size)
            positions = pos[atoms.flatten()].view(-1, size, 3)
            positions = (positions - positions.mean(dim=1, keepdim=True)).to(self.device, self.dtype)
            energy[frames] = self._energies(z[atoms].to(self.device), positions).to("cpu")
        return Prediction(energy)

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
        return self.model(z.flatten(), pos.flatten(0, 1), batch)

    def _check_elements(self, z: Tensor):
        domain = getattr(self.model, "domain", None)
        if domain is None or not domain.known:
            return
        unknown = sorted(set(torch.unique(z).tolist()) - set(domain.atomic_numbers))
        if unknown:
            names, known = _symbols(unknown), _symbols(domain.atomic_numbers)
            raise InputError(f"the model was trained on {known} and knows nothing of {names}")


def _symbols(atomic_numbers: Sequence[int]) -> str:
    return ", ".join(chemical_symbols[number] for number in atomic_numbers)


def _flat_tensors(z: Array | Sequence[Atoms], pos: Array | None, ptr: Array | None) -> tuple[Tensor, Tensor, Tensor]:
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
