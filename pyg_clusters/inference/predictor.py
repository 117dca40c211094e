"""Predictions, and batched prediction for many frames of any sizes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from pyg_clusters.errors import InputError
from pyg_clusters.frames import BadFrame, FrameBlock, Frames, check_block, join_atoms
from pyg_clusters.frames.atoms import Array, check_distances, flat_tensors
from pyg_clusters.frames.electronic_state import state_problem, stated_state
from pyg_clusters.models.checkpoint import load_model, usable_device
from pyg_clusters.models.contract import (
    HasAtomicEnergies,
    HasFastPath,
    HasSpread,
    check_extra_arguments,
    element_problem,
    evaluation_mode,
    extra_arguments,
)
from pyg_clusters.models.training_domain import domain_of, state_of_training
from pyg_clusters.nn.output_scale import reference_energies
from pyg_clusters.options import Fragments
from pyg_clusters.positions import check_positions
from pyg_clusters.structures import energy_and_forces

ATOMS_AT_ONCE: int = 8192  # default number of atoms in a batch on a CPU: the working set stays in the cache
ATOMS_AT_ONCE_ON_GPU: int = 1 << 18  # default number of atoms in a batch on any other device
PAIRS_PER_ATOM: int = 128  # maximum number of pairs of atoms in a batch, per allowed atom


@dataclass
class Prediction:
    """Predictions in input order, one value per frame or per atom."""

    values: Tensor  #: Energies ``[num_frames]`` in eV, or shieldings ``[num_atoms]`` in ppm.
    num_frames: int
    num_atoms: int
    model: str  #: Name of the class of the model.
    #: Standard deviations of the values in the same unit, if the model provides them (as an ensemble does).
    spread: Tensor | None = None

    @property
    def per_atom(self) -> bool:
        """Whether the values are per atom. (For frames of one atom there is no difference.)"""
        return self.values.numel() != self.num_frames

    @property
    def energy(self) -> Tensor:
        """Energies ``[num_frames]`` in eV; raises an error if the model predicts shieldings."""
        return self._if("an energy model", self.num_frames)

    @property
    def shielding(self) -> Tensor:
        """Shieldings ``[num_atoms]`` in ppm; raises an error if the model predicts energies."""
        return self._if("a model of shieldings", self.num_atoms)

    def _if(self, kind: str, number: int) -> Tensor:
        if self.values.numel() != number:
            what = "atom" if self.per_atom else "cluster"
            raise InputError(f"{self.model} gives a value per {what}: it is not {kind}")
        return self.values


class Predictor:
    """Batched prediction of energies of frames, or of shieldings of their atoms.

    Frames of the same size are batched without padding, with limits on the number of atoms and of pairs of atoms.
    Results are in input order. Positions are centred before they are converted to the precision of the model, which
    preserves digits for clusters far from the origin. Batches that do not fit in the memory of the device are halved.

    Args:
        model: Model (:class:`~pyg_clusters.models.ClusterModel`), or name of a pretrained model. It is set to
            evaluation mode, and moved to the device if one is given; later in-place changes of its weights take effect.
        device: Device; by default that of the model.
        max_atoms: Maximum number of atoms in a batch; the default depends on the device. The number of pairs of atoms
            is limited to 128 times as many.
        transform: Transform that creates the graph of a cluster as in training, such as
            :class:`~pyg_clusters.transforms.ShellGraph`, for models that need one.
        half: Whether to use half precision for matrix products, for DART only (see
            :class:`~pyg_clusters.models.fast_dart.TabulatedDART` for the accuracy); faster only on a GPU.

    Raises:
        InputError: If the device cannot be used, the model needs other input, or it does not support half precision.

    Example:
        >>> from pyg_clusters.models import DART, NodeSchNet
        >>> z, pos = torch.full((5, 4), 31), torch.rand(5, 4, 3) * 9
        >>> Predictor(DART())(z, pos).energy.shape
        torch.Size([5])
        >>> Predictor(NodeSchNet())(z, pos).shielding.shape
        torch.Size([20])
    """

    def __init__(
        self,
        model: nn.Module | str,
        device: torch.device | str | None = None,
        max_atoms: int | None = None,
        transform: Callable[[Data], Data] | None = None,
        half: bool = False,
    ):
        model = load_model(model) if isinstance(model, str) else model
        first = next(model.parameters(), torch.empty(0))
        self.device = first.device if device is None else usable_device(device)
        self.model = model.to(self.device).eval()
        by_device = ATOMS_AT_ONCE if self.device.type == "cpu" else ATOMS_AT_ONCE_ON_GPU
        self.max_atoms = by_device if max_atoms is None else max_atoms
        self.transform = transform
        if transform is None:
            check_extra_arguments(model, (), "give Predictor a transform that makes it")
        fast = model.fast_path(self.device, half) if isinstance(model, HasFastPath) and transform is None else None
        if half and fast is None:
            raise InputError(f"half precision is for DART and ensembles of it, not for {type(model).__name__}")
        by_model = self._values_by_forward if transform is None else self._values_by_graphs
        self._values: Callable[..., Tensor] = fast or by_model

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights, the precision of the model."""
        return next((weight.dtype for weight in self.model.parameters()), torch.get_default_dtype())

    @property
    def value_dtype(self) -> torch.dtype:
        """Type of the results: double for a model with reference energies, else that of the weights."""
        return torch.double if reference_energies(self.model) else self.dtype

    @property
    def dtype_name(self) -> str:
        """NumPy and Arrow name of :attr:`value_dtype`."""
        return str(self.value_dtype).removeprefix("torch.")

    @torch.no_grad()
    def __call__(
        self,
        z: Array | Sequence[Atoms] | Frames,
        pos: Array | None = None,
        ptr: Array | None = None,
        extra: Mapping[str, Array] | None = None,
        fragments: Fragments = "refuse",
    ) -> Prediction:
        """Predict frames given as flat arrays, as arrays of one cluster size, as a list of ASE ``Atoms``, or as files.

        Args:
            z: Atomic numbers ``[num_atoms]`` with ``ptr``, or ``[num_frames, num_atoms]`` without; or ASE ``Atoms``
                or a list of them; or :class:`~pyg_clusters.frames.Frames`, which are read in blocks. A frame that
                cannot be used raises an error, or has the energy NaN if such frames are to be skipped.
            pos: Positions in Å, ``[num_atoms, 3]`` or ``[num_frames, num_atoms, 3]``.
            ptr: Offsets of the frames ``[num_frames + 1]``.
            extra: Additional arguments of the model by name (such as ``populations``), as arrays ``[num_atoms, ...]``.
            fragments: ``"refuse"`` raises at ASE ``Atoms`` that are in pieces far apart, as if a cell had cut them or
                their positions were not in Å; ``"keep"`` predicts them too. Arrays are not examined; ``Frames`` have
                their own such argument.

        Raises:
            ValueError: If the shapes do not match.
            InputError: If an element or charge occurs that the model was not trained on, or several elements that it
                does not distinguish, a position is not finite, two atoms coincide (of ASE ``Atoms``, are closer than
                0.5 Å), a cluster does not fit in the memory of the device, or the model returns neither a value per
                frame nor one per atom.
        """
        if isinstance(z, Frames):
            return self._of_frames(z)
        of_ase = pos is None and not isinstance(z, np.ndarray | Tensor)
        if of_ase:
            z = list(z) if isinstance(z, Sequence | Iterator) else [z]  # type: ignore[list-item]
            if strange := [frame for frame in z if not isinstance(frame, Atoms)]:
                raise ValueError(f"a list of ASE Atoms is needed, got {strange[0]!r}; for files: Frames.open(files)")
            for frame, state in enumerate(map(stated_state, z)):
                if problem := state_problem(state, *state_of_training(self.model)):
                    raise InputError(f"frame {frame}: {problem}")
        z, pos, ptr = flat_tensors(z, pos, ptr, fragments)
        check_positions(pos, ptr)
        if of_ase:
            check_distances(z, pos, ptr)
        if problem := element_problem(self.model, torch.unique(z).tolist()):
            raise InputError(problem)
        arrays = {name: torch.as_tensor(value) for name, value in (extra or {}).items()}
        values = self._empty(0)
        per_atom: bool | None = None
        for frames, atoms, numbers, positions, kwargs in self._batches(z, pos, ptr, arrays):
            compute = partial(self._values_on_device, tuple(kwargs))
            result = self._in_memory(compute, numbers, positions, *kwargs.values())
            if per_atom is None:  # frames of one atom, which do not show it, come last
                per_atom = result.shape[:1] != frames.shape
                values = self._empty(z.numel() if per_atom else ptr.numel() - 1)
            indices = atoms if per_atom else frames
            if result.shape != (*indices.shape, *values.shape[1:]):
                raise InputError(
                    f"{type(self.model).__name__} returns {list(result.shape)} for {frames.numel()} frames of "
                    f"{numbers.size(1)} atoms: neither a value per frame nor one per atom"
                )
            values[indices] = result
        return self._prediction(values, ptr.numel() - 1, z.numel())

    @property
    def gives_spread(self) -> bool:
        """Whether the model provides a spread."""
        return isinstance(self.model, HasSpread)

    @property
    def per_atom(self) -> bool:
        """Whether the model predicts a value per atom, tested on three atoms of an element of the training set."""
        domain = domain_of(self.model)
        known = domain.atomic_numbers if domain else getattr(self.model, "elements", (11,))
        number = atomic_numbers[known[0]] if isinstance(known[0], str) else int(known[0])
        triangle = torch.tensor([[[0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [0.0, 3.0, 0.0]]])
        return self(torch.full((1, 3), number), triangle).per_atom

    @torch.no_grad()
    def atomic_energies(self, clusters: Sequence[Atoms], fragments: Fragments = "refuse") -> list[np.ndarray] | None:
        """Return atomic energies ``[num_atoms]`` of each cluster in eV; ``None`` if the model does not provide them."""
        if not isinstance(self.model, HasAtomicEnergies) or self.transform is not None:
            return None
        results = []
        for cluster in clusters:
            z = torch.from_numpy(cluster.numbers).long().to(self.device)
            positions = join_atoms(cluster, fragments).positions
            pos = torch.from_numpy(positions - positions.mean(axis=0)).to(self.device, self.dtype)
            with evaluation_mode(self.model):
                results.append(self.model.atomic_energies(z, pos, torch.zeros_like(z)).double().cpu().numpy())
        return results

    def _of_frames(self, frames: Frames) -> Prediction:
        """Predict the frames of files, block by block."""
        parts = [self._of_block(block, frames.on_bad) for block in frames]
        values = torch.cat([self._empty(0), *map(_columns, parts)])
        return self._prediction(values, sum(part.num_frames for part in parts), sum(part.num_atoms for part in parts))

    def _of_block(self, block: FrameBlock, on_bad: Literal["stop", "skip"]) -> Prediction:
        """Predict the frames of a block; NaN for bad frames."""
        good, bad = check_for_model(block, self.model, on_bad)
        prediction = self(good.z, good.pos, good.ptr)
        if not bad:
            return prediction
        if prediction.per_atom:
            raise InputError(f"{bad[0]}; shieldings of the other frames: pyg-clusters predict --on-bad skip")
        indices = torch.tensor([*good.number.tolist(), *(frame.number for frame in bad)])
        values = self._empty(indices.numel()).fill_(torch.nan)
        values[: len(good)] = _columns(prediction)
        return self._prediction(values[indices.argsort()], indices.numel(), prediction.num_atoms)

    def _empty(self, number: int) -> Tensor:
        """Allocate values ``[number]``, or values and spreads ``[number, 2]`` if the model provides spreads."""
        return torch.empty((number, 2) if self.gives_spread else (number,), dtype=self.value_dtype)

    def _prediction(self, values: Tensor, num_frames: int, num_atoms: int) -> Prediction:
        """Create the prediction from the filled values of :meth:`_empty`."""
        values, spread = values.T.contiguous() if self.gives_spread else (values, None)
        return Prediction(values, num_frames, num_atoms, type(self.model).__name__, spread)

    def _batches(
        self, z: Tensor, pos: Tensor, ptr: Tensor, values: Mapping[str, Tensor]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]]:
        """Divide frames into batches of one size, largest first, within the limits on atoms and pairs of atoms.

        Yields indices of frames ``[num_frames]`` and of their atoms ``[num_frames * size]``, atomic numbers, centred
        positions in Å and values per atom ``[num_frames, size, ...]``.
        """
        sizes = ptr.diff()
        for size in torch.unique(sizes).flip(0).tolist():
            waiting = (sizes == size).nonzero().flatten()
            while waiting.numel():
                fit = min(self.max_atoms // size, self.max_atoms * PAIRS_PER_ATOM // size**2)
                frames, waiting = waiting[: max(1, fit)], waiting[max(1, fit) :]
                atoms = (ptr[frames][:, None] + torch.arange(size)).flatten()
                positions = pos[atoms].view(-1, size, 3)
                positions = positions - positions.mean(dim=1, keepdim=True)
                kwargs = {name: value[atoms].unflatten(0, (-1, size)) for name, value in values.items()}
                yield frames, atoms, z[atoms].view(-1, size), positions, kwargs

    def _in_memory(self, compute: Callable[..., Tensor], *batch: Tensor) -> Tensor:
        """Compute the results of a batch, in parts if it does not fit in the memory of the device."""
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
            torch.cuda.empty_cache()
            fit = (fit + 1) // 2
            self.max_atoms = min(self.max_atoms, fit * size)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _values_on_device(self, names: Sequence[str], z: Tensor, pos: Tensor, *values: Tensor) -> Tensor:
        extra = {name: value.to(self.device) for name, value in zip(names, values, strict=True)}
        return self._values(z.to(self.device), pos.to(self.device, self.dtype), **extra).to("cpu", self.value_dtype)

    def _values_by_forward(self, z: Tensor, pos: Tensor, **extra: Tensor) -> Tensor:
        batch = torch.arange(z.size(0), device=z.device).repeat_interleave(z.size(1))
        flat = {name: value.flatten(0, 1) for name, value in extra.items()}
        return self._call(z.flatten(), pos.flatten(0, 1), batch, **flat)

    def _values_by_graphs(self, z: Tensor, pos: Tensor, **extra: Tensor) -> Tensor:
        assert self.transform is not None
        values = {"z": z, "pos": pos, **extra}
        graphs = [Data(**dict(zip(values, row, strict=True))) for row in zip(*values.values(), strict=True)]
        batch = Batch.from_data_list(list(map(self.transform, graphs)))
        extra = {name: batch[name] for name in extra_arguments(self.model) if name in batch}
        check_extra_arguments(self.model, extra, f"{self.transform} does not make it")
        return self._call(batch.z, batch.pos, batch.batch, **extra)

    def _call(self, *arguments: Tensor, **extra: Tensor) -> Tensor:
        with evaluation_mode(self.model):
            if isinstance(self.model, HasSpread):
                return torch.stack(self.model.mean_and_spread(*arguments, **extra), dim=1)
            return self.model(*arguments, **extra)


def _columns(prediction: Prediction) -> Tensor:
    """Values ``[num]``, or values and spreads ``[num, 2]``."""
    spread = prediction.spread
    return prediction.values if spread is None else torch.stack([prediction.values, spread], dim=1)


def check_forces(predictor: Predictor):
    """Raise an :class:`~pyg_clusters.errors.InputError` if a model has no forces."""
    model = predictor.model
    if predictor.transform is not None:
        raise InputError(f"{type(model).__name__} needs a graph of each frame and has no forces; use SmoothDART")
    domain = domain_of(model)
    z = torch.full((3,), domain.atomic_numbers[0] if domain else 31, device=predictor.device)
    triangle = torch.tensor([[0.0, 0.0, 0.0], [2.9, 0.0, 0.0], [0.0, 2.9, 0.0]])
    energy_and_forces(model, z, triangle.to(predictor.device, predictor.dtype), torch.zeros_like(z))


def check_for_model(
    block: FrameBlock, model: nn.Module, on_bad: Literal["stop", "skip"]
) -> tuple[FrameBlock, list[BadFrame]]:
    """Check the frames of a block, including the elements, sizes and charge on which a model was trained."""
    domain = domain_of(model)
    return check_block(
        block,
        atomic_numbers=domain.atomic_numbers if domain else None,
        size_range=domain.size_range if domain else None,
        state=state_of_training(model),
        on_bad=on_bad,
    )
