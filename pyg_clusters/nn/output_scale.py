"""Scaling of raw network outputs: base class of scales, and scaling to energies."""

import warnings
from collections.abc import Callable, Iterable, Mapping

import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor, nn

from pyg_clusters.errors import InputError
from pyg_clusters.geometry import check_ptr, is_traced, ptr_to_batch, whole_clusters
from pyg_clusters.units import KCAL_PER_MOL

MAX_ATOMIC_NUMBER: int = 118

COARSE: float = 1e-4  # maximum rounding of energies in eV; a type that rounds more is not precise enough


def element_counts(z: Tensor, ptr: Tensor) -> Tensor:
    """Number of atoms of each element in each cluster, ``[num_graphs, MAX_ATOMIC_NUMBER + 1]``."""
    num_graphs, width = ptr.numel() - 1, MAX_ATOMIC_NUMBER + 1
    return torch.bincount(ptr_to_batch(ptr) * width + z, minlength=num_graphs * width).view(num_graphs, width)


class OutputScale(nn.Module):
    """Base class of scales, which are fitted to the targets of a training set or loaded before training."""

    is_fitted: bool = False
    """Whether the scale has been fitted or loaded; otherwise the first training step warns."""

    def reset_parameters(self):
        self.is_fitted = False

    def fit(self, z: Tensor, ptr: Tensor, target: Tensor):
        """Fit the scale to a training set.

        Args:
            z: Atomic numbers ``[num_atoms]``.
            ptr: Offsets of the clusters ``[num_graphs + 1]``.
            target: Energies ``[num_graphs]`` in eV, or shieldings ``[num_atoms]`` in ppm.
        """
        self.fit_blocks([(z, ptr, target)])

    def fit_blocks(self, blocks: Iterable[tuple[Tensor, Tensor, Tensor]]):
        """Like :meth:`fit`, for blocks of clusters, one in memory at a time."""
        raise NotImplementedError

    def warn_unfitted(self):
        """Warn once, in training mode, if the scale is not fitted; there is no warning during tracing."""
        if self.is_fitted or is_traced() or not (self.training and torch.is_grad_enabled()):
            return
        self.is_fitted = True
        warnings.warn(
            "the scale of the model is not fitted: call model.scale.fit(z, ptr, y) with the training set before the "
            "first step",
            stacklevel=4,
        )

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args):
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.is_fitted |= f"{prefix}scale" in state_dict


class EnergyScale(OutputScale):
    r"""Energy of an atom in eV from the raw output of a network, :math:`E_i = e(z_i) + o(z_i) + s\, r_i`.

    Offset :math:`o`, scale :math:`s` and reference energies :math:`e` are buffers and are therefore saved and moved
    with the model. Before :meth:`fit` the offset is zero and the raw output is in kcal/mol.

    The reference energies put the energies of a model on the scale of its labels. They and the output are then in
    double precision, whatever the precision of the model, so that total energies of clusters are not rounded. If some
    elements have reference energies, the energy of any other element is infinite. Without reference energies, the
    state dict does not contain them.

    Shapes:
        - **input:** raw output ``[num_atoms]``, atomic numbers ``z [num_atoms]`` (or ``None`` if the scale was fitted
          to one element)
        - **output:** ``[num_atoms]`` in eV; in double precision if there are reference energies

    Example:
        >>> scale = EnergyScale()
        >>> scale.set_references({"Na": -4410.25})
        >>> scale(torch.zeros(2), torch.tensor([11, 11])).sum()
        tensor(-8820.5000, dtype=torch.float64)
    """

    offset: Tensor
    scale: Tensor
    references: Tensor | None

    def __init__(self):
        super().__init__()
        self.register_buffer("offset", torch.zeros(MAX_ATOMIC_NUMBER + 1))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("references", None)
        self.reset_parameters()

    def reset_parameters(self):
        super().reset_parameters()
        self.offset.zero_()
        self.scale.fill_(1 / KCAL_PER_MOL)
        self.references = None

    def set_references(self, references: Mapping[str, float]):
        """Set the reference energies per atom in eV by element symbol; an empty mapping removes them."""
        numbered = {atomic_numbers[symbol]: energy for symbol, energy in references.items()}
        self.references = reference_table(numbered).to(self.offset.device) if numbered else None

    def reference_energies(self) -> dict[str, float]:
        """Reference energies per atom in eV, by element symbol."""
        if self.references is None:
            return {}
        return {chemical_symbols[int(z)]: float(self.references[z]) for z in self.references.isfinite().nonzero()}

    def sums_of_references(self, z: Tensor, batch: Tensor, num_graphs: int) -> Tensor:
        """Sum of the reference energies over each cluster, ``[num_graphs]`` in eV (double precision)."""
        sums = torch.zeros(num_graphs, dtype=torch.double, device=z.device)
        return sums if self.references is None else sums.index_add_(0, batch, self.references[z])

    @torch.no_grad()
    def fit_blocks(self, blocks: Iterable[tuple[Tensor, Tensor, Tensor]]):
        """Set the offset of each element by least squares on cluster energies; see :meth:`OutputScale.fit`.

        Raises:
            InputError: If an energy is not finite.
        """
        fit, largest, dtype = ReferenceFit(), 0.0, torch.double
        for z, ptr, energy in blocks:
            if not bool(energy.isfinite().all()):
                wrong = float(energy[~energy.isfinite()][0])
                raise InputError(f"training energies must be finite numbers: one is {wrong:g}; leave such clusters out")
            fit.add(z, ptr, energy)
            largest, dtype = max(largest, float(energy.abs().max())), energy.dtype
        if is_coarse(largest, dtype):
            warnings.warn(
                f"energies as large as {largest:.6g} eV are rounded to {largest * torch.finfo(dtype).eps:.1g} eV in "
                f"{str(dtype).removeprefix('torch.')}: give them in double precision",
                stacklevel=2,
            )
        self.offset.zero_()
        found = fit.solution()
        self.is_fitted = True
        if not fit.is_unique:
            symbols = ", ".join(chemical_symbols[number] for number in found)
            warnings.warn(
                f"the compositions of the training set do not determine the energies of {symbols} separately: energies "
                "of other compositions, and those of atoms, will be meaningless",
                stacklevel=2,
            )
        if self.references is None and is_coarse(largest, self.offset.dtype):
            self.set_references({chemical_symbols[number]: value for number, value in found.items()})
            return
        for number, value in found.items():
            self.offset[number] = value

    def forward(self, raw: Tensor, z: Tensor | None) -> Tensor:
        self.warn_unfitted()
        raw = raw.to(self.scale.dtype)  # in mixed precision a sum over atoms in bfloat16 would lose digits
        if z is None:
            known = self.offset.bool() if self.references is None else self.references.isfinite()
            if not is_traced() and known.count_nonzero() > 1:
                raise InputError("atomic numbers z are needed: the model was trained on several elements")
            z = known.int().argmax()
        energy = self.scale * raw + self.offset[z]
        return energy if self.references is None else energy.double() + self.references[z]

    def _apply(self, fn: Callable, recurse: bool = True):
        # The reference energies follow the model to another device, but not to another precision.
        references, self.references = self.references, None
        super()._apply(fn, recurse)
        if references is not None:
            self.references = references.to(self.offset.device)
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args):
        if f"{prefix}scale" in state_dict:  # a state dict of other modules leaves the reference energies unchanged
            there = state_dict.get(f"{prefix}references")
            self.references = None if there is None else torch.empty_like(there, device=self.offset.device)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __repr__(self) -> str:
        fitted = {int(number): round(float(self.offset[number]), 6) for number in self.offset.nonzero().flatten()}
        found = f"scale={float(self.scale):.6g} eV, offset={fitted} eV"
        if self.references is not None:
            found += f", references={self.reference_energies()} eV"
        return f"{self.__class__.__name__}({found})"


def reference_energies(model: nn.Module) -> dict[str, float]:
    """Reference energies per atom in eV of a model (or of the first member of an ensemble), by element symbol."""
    scales = (module for module in model.modules() if isinstance(module, EnergyScale))
    return next((scale.reference_energies() for scale in scales if scale.references is not None), {})


class ReferenceFit:
    """Least-squares fit of cluster energies by one energy per atom of each element, from blocks of clusters.

    Only the triangular QR factor of the compositions and energies is kept between blocks, in double precision. The fit
    is as accurate as with all clusters at once.

    Example:
        >>> fit = ReferenceFit()
        >>> for energy in (-2.0, -4.0):
        ...     fit.add(torch.tensor([31, 31]), torch.tensor([0, 2]), torch.tensor([energy]))
        >>> round(fit.solution()[31], 9)
        -1.5
    """

    clusters_at_once: int = 4096

    def __init__(self):
        self._factor = torch.zeros(0, MAX_ATOMIC_NUMBER + 2, dtype=torch.double)

    def add(self, z: Tensor, ptr: Tensor, energy: Tensor):
        """Add clusters; the arguments are those of :meth:`OutputScale.fit`."""
        check_ptr(ptr, z.numel())
        z, ptr, energy = z.cpu(), ptr.cpu(), energy.cpu()
        blocks = whole_clusters(ptr, self.clusters_at_once, power=0)
        for (atoms, part), energies in zip(blocks, energy.split(self.clusters_at_once), strict=False):
            composition = element_counts(z[atoms], part)
            columns = torch.cat([composition.double(), energies.double().view(-1, 1)], dim=1)
            self._factor = torch.linalg.qr(torch.cat([self._factor, columns]), mode="r").R

    @property
    def is_unique(self) -> bool:
        """Whether the compositions determine the energy of each element."""
        compositions = self._factor[:, self._factor[:, :-1].any(dim=0).nonzero().flatten()]
        return int(torch.linalg.matrix_rank(compositions, rtol=1e-10)) == compositions.size(1)

    def solution(self) -> dict[int, float]:
        """Energies in eV by atomic number; if they are not unique, the solution of smallest norm."""
        elements = self._factor[:, :-1].any(dim=0).nonzero().flatten()
        found = torch.linalg.lstsq(self._factor[:, elements], self._factor[:, -1:], driver="gelsd").solution
        return dict(zip(elements.tolist(), found.flatten().tolist(), strict=True))


def fit_references(z: Tensor, ptr: Tensor, energy: Tensor) -> dict[int, float]:
    """Fitted energies per atom in eV by atomic number; see :class:`ReferenceFit`."""
    fit = ReferenceFit()
    fit.add(z, ptr, energy)
    return fit.solution()


def farthest_from_fit(z: Tensor, ptr: Tensor, energy: Tensor) -> float:
    """Largest magnitude in eV per atom of energies ``[num_graphs]`` minus fitted references."""
    return float(((energy - shift_of_references(z, ptr, fit_references(z, ptr, energy))) / ptr.diff()).abs().max())


def is_coarse(largest: float, dtype: torch.dtype = torch.float32) -> bool:
    """Whether a floating-point type rounds energies as large as this (in eV) by more than 0.1 meV.

    Example:
        >>> is_coarse(-170.0), is_coarse(-2430000.0123), is_coarse(-2430000.0123, torch.double)
        (False, True, False)
    """
    return abs(largest) * torch.finfo(dtype).eps > COARSE


def in_needed_precision(energy: Tensor) -> Tensor:
    """Energies ``[num_graphs]`` in eV in single precision, or in double precision if single would round them.

    Example:
        >>> in_needed_precision(torch.tensor([-2430000.0123, -2430000.1234], dtype=torch.double)).diff()
        tensor([-0.1111], dtype=torch.float64)
    """
    return energy if energy.numel() and is_coarse(float(energy.abs().max())) else energy.float()


def reference_table(references: Mapping[int, float]) -> Tensor:
    """Reference energies by atomic number, ``[119]`` in double precision, infinity for elements without one."""
    table = torch.full((MAX_ATOMIC_NUMBER + 1,), float("inf"), dtype=torch.double)
    for number, value in references.items():
        table[number] = value
    return table


def shift_of_references(z: Tensor, ptr: Tensor, references: Mapping[int, float]) -> Tensor:
    """Sum of per-element reference energies over each cluster, ``[num_graphs]`` in eV (double precision).

    Raises:
        ValueError: If an element has no reference energy.
    """
    values = reference_table(references)[z]
    if values.isinf().any():
        missing = sorted(set(z[values.isinf()].tolist()))
        raise ValueError(f"no reference energy for atomic numbers {missing}, only for {sorted(references)}")
    row = torch.repeat_interleave(ptr.diff())
    return torch.zeros(ptr.numel() - 1, dtype=torch.double).index_add_(0, row, values)
