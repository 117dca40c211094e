"""Candidates of a screening: their relaxation with the forces of the model, and their files."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
from ase import Atoms
from scipy.stats import rankdata
from torch import Tensor

from pyg_clusters.composition import comparable
from pyg_clusters.errors import InputError
from pyg_clusters.frames import BadFrame, write_extxyz, write_table
from pyg_clusters.frames.block import arrays_of
from pyg_clusters.frames.provenance import (
    EARLIER,
    ENERGY_PREDICTION,
    INITIAL,
    SOURCE_FILE,
    SOURCE_FRAME,
    set_origin,
    write_values,
)
from pyg_clusters.inference import Predictor
from pyg_clusters.inference.flags import text_of_flags
from pyg_clusters.metrics import energy_metrics
from pyg_clusters.structures.relaxation import LEFT_RANGE, BatchedEnergy
from pyg_clusters.terminal import FrameProgress, count_of
from pyg_clusters.units import KCAL_PER_MOL


@dataclass
class Candidate:
    """A selected frame."""

    file: str  #: File from which the frame was read.
    frame: int  #: Index of the frame in this file, from 0.
    energy: float  #: Predicted energy in eV.
    rank: int  #: Rank by energy, from 1, among all frames of its composition, or among those that were relaxed.
    atoms: Atoms  #: The structure.
    properties: dict[str, float] = field(default_factory=dict)  #: Values that were read with the frame.
    index: int = 0  #: Index of the frame among all scored frames.
    reason: str = ""  #: Reason for the selection.
    spread: float | None = None  #: Standard deviation of the energy in eV, if the model provides one.
    #: Results of a relaxation, empty without one: ``initial_pred_energy`` is the predicted energy of the unrelaxed
    #: frame in eV; ``left_range`` states in what respect the relaxed structure is outside the geometries of the
    #: training set (empty if it is inside). ``energy``, ``spread`` and ``atoms`` are then those of the relaxed
    #: structure.
    relaxation: dict[str, float | int | bool | str] = field(default_factory=dict)
    origin: tuple[str, int] | None = None  #: File and index where the frame was first read, if different.

    @property
    def source_file(self) -> str:
        """File in which the frame was first read."""
        return self.origin[0] if self.origin else self.file

    @property
    def source_frame(self) -> int:
        """Index of the frame in that file, from 0."""
        return self.origin[1] if self.origin else self.frame

    @property
    def size(self) -> int:
        """Number of atoms."""
        return len(self.atoms)

    @property
    def composition(self) -> str:
        """Formula."""
        return self.atoms.get_chemical_formula()

    @property
    def inside(self) -> bool:
        """Whether the structure is within the geometries of the training set, as checked by a relaxation."""
        return not self.relaxation.get("left_range")


@dataclass(repr=False)
class Screening:
    """All scored frames, and the candidates."""

    file: np.ndarray  #: File of each frame, ``[num_frames]``.
    frame: np.ndarray  #: Index of each frame in its file, from 0, ``[num_frames]``.
    size: np.ndarray  #: Number of atoms, ``[num_frames]``.
    energy: np.ndarray  #: Predicted energy in eV, ``[num_frames]``.
    properties: dict[str, np.ndarray]  #: Values that were read with the frames, ``[num_frames]`` each.
    candidates: list[Candidate]  #: By size and composition, then by energy or in the order of selection.
    bad: list[BadFrame]  #: Frames that were skipped.
    #: Standard deviation of each energy in eV, ``[num_frames]``, if the model provides them.
    spread: np.ndarray | None = None
    #: Formula of each frame, ``[num_frames]``; if ``None``, all frames have the same element.
    composition: np.ndarray | None = None
    #: Whether each frame is outside the training set of the model, ``[num_frames]``, if known.
    flagged: np.ndarray | None = None
    #: Energy of each frame after the relaxation in eV, ``[num_frames]``, NaN for frames that were not relaxed; ``None``
    #: without a relaxation.
    relaxed: np.ndarray | None = None
    num_left_range: int = 0  #: Number of frames that left the geometries of the training set during the relaxation.
    files: Sequence[str] = ()  #: Files and folders of the results, if they were written.
    truth: str | None = None  #: Name of the true energy in eV among the :attr:`properties`, if it is known.

    def print(self):
        """Print the number of candidates, the files, the number of frames outside the training set, and the agreement
        with true energies.
        """
        num_frames = len(self.energy)
        where = f" in {Path(self.files[0]).parent}:" if self.files else ""
        print(f"{count_of(len(self.candidates), 'candidate')} of {count_of(num_frames, 'frame')}{where}")
        print(*(f"  {file}" for file in self.files), sep="\n")
        if self.flagged is not None and self.flagged.any():
            flagged = text_of_flags(int(self.flagged.sum()), num_frames)
            print(f"{flagged}: their energies are less certain\n  predict writes the reasons to pred_flag")
        if self.true is not None:
            print(self._agreement())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.energy)} frames, {len(self.candidates)} candidates)"

    @cached_property
    def kind(self) -> np.ndarray:
        """Sizes, or compositions if there are alloys, within which frames are compared, ``[num_frames]``."""
        return self.size if self.composition is None else comparable(self.composition, self.size)

    @cached_property
    def rank(self) -> np.ndarray:
        """Rank of each frame by energy within its :attr:`kind`, from 1, ``[num_frames]``."""
        ranks = np.zeros(len(self.energy), dtype=int)
        for kind in np.unique(self.kind):
            rows = self.kind == kind
            ranks[rows] = rankdata(self.energy[rows], method="ordinal")
        return ranks

    @cached_property
    def picked(self) -> np.ndarray:
        """Whether each frame is a candidate, ``[num_frames]``."""
        picked = np.zeros(len(self.energy), dtype=bool)
        picked[[candidate.index for candidate in self.candidates]] = True
        return picked

    @property
    def compared(self) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the frames that the candidates were selected from, and their energies in eV: all frames, or those
        that were relaxed, with the energies after the relaxation.
        """
        if self.relaxed is None:
            return np.arange(len(self.energy)), self.energy
        shown = np.flatnonzero(np.isfinite(self.relaxed))
        return shown, self.relaxed[shown]

    @property
    def true(self) -> np.ndarray | None:
        """True energy of each frame in eV, ``[num_frames]``, if it is known."""
        return None if self.truth is None else self.properties[self.truth]

    def _agreement(self) -> str:
        assert self.true is not None
        shown, energy = self.compared
        metrics = energy_metrics(energy, self.true[shown], self.size[shown], self.kind[shown])
        regrets, within = list(self.regrets().values()), "composition" if self.has_alloys else "size"
        spearman = metrics["spearman_within_size"]
        ranks = f", Spearman within a {within} {spearman:.2f}" if np.isfinite(spearman) else ""
        mean = f" (mean of {len(regrets):,} {within}s)" if len(regrets) > 1 else ""
        return (
            f"{self.truth}: MAE {metrics['mae_kcal_mol']:.2f} kcal/mol{ranks}\n"
            f"  lowest candidate {np.mean(regrets):.2f} kcal/mol above the lowest of all frames{mean}"
        )

    def regrets(self) -> dict[int | str, float]:
        """Lowest true energy of the candidates above that of all frames in kcal/mol, by :attr:`kind`.

        With a relaxation, these include the frames that were not relaxed.
        """
        true, kinds = self.true, self.kind
        assert true is not None
        return {
            kind: float(true[(kinds == kind) & self.picked].min() - true[kinds == kind].min()) * KCAL_PER_MOL
            for kind in np.unique(kinds[self.picked]).tolist()
        }

    def candidate(self, index: int, reason: str, atoms: Atoms | None = None, origin=None) -> Candidate:
        """Candidate of a frame."""
        return Candidate(
            str(self.file[index]),
            int(self.frame[index]),
            float(self.energy[index]),
            int(self.rank[index]),
            Atoms() if atoms is None else atoms,
            {name: values[index].item() for name, values in self.properties.items()},
            index,
            reason,
            None if self.spread is None else float(self.spread[index]),
            origin=origin,
        )

    @property
    def has_alloys(self) -> bool:
        """Whether frames are compared by composition."""
        return self.kind.dtype.kind == "U"

    def kind_of(self, candidate: Candidate) -> int | str:
        """Size or composition of a candidate, as in :attr:`kind`."""
        return candidate.composition if self.has_alloys else candidate.size


def by_composition(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    """Group candidates by composition, the smallest clusters first."""
    kinds: dict[tuple[int, str], list[Candidate]] = {}
    for candidate in candidates:
        kinds.setdefault((candidate.size, candidate.composition), []).append(candidate)
    return [kinds[kind] for kind in sorted(kinds)]


def write_candidates(screening: Screening, folder: Path):
    """Write the candidates and their table."""
    candidates = screening.candidates
    write_extxyz(folder / "candidates.extxyz", map(_atoms_to_write, candidates))
    columns: dict[str, list] = {
        SOURCE_FILE: [candidate.source_file for candidate in candidates],
        SOURCE_FRAME: [candidate.source_frame for candidate in candidates],
        "size": [candidate.size for candidate in candidates],
    }
    if screening.has_alloys:
        columns["composition"] = [candidate.composition for candidate in candidates]
    columns["pred_rank"] = [candidate.rank for candidate in candidates]
    columns["pred_energy"] = [candidate.energy for candidate in candidates]
    if screening.spread is not None:
        columns["pred_energy_spread"] = [candidate.spread for candidate in candidates]
    for name in candidates[0].relaxation if candidates else ():
        columns[name] = [candidate.relaxation[name] for candidate in candidates]
    columns["pred_reason"] = [candidate.reason for candidate in candidates]
    if screening.truth:
        relaxed = INITIAL if candidates and candidates[0].relaxation else ""
        name, values = relaxed + screening.truth, [candidate.properties[screening.truth] for candidate in candidates]
        columns[EARLIER + name if name in columns else name] = values
    write_table(folder / "candidates.csv", columns)


def _atoms_to_write(candidate: Candidate) -> Atoms:
    atoms = candidate.atoms.copy()
    atoms.calc = candidate.atoms.calc  # which a copy lacks
    spread = {} if candidate.spread is None else {"pred_energy_spread": candidate.spread}
    set_origin(atoms.info, candidate.source_file, candidate.source_frame)
    rank = {"pred_energy": candidate.energy, **spread, "pred_rank": candidate.rank, "pred_reason": candidate.reason}
    results = candidate.relaxation.items()  # those of relax_atoms are in info already
    relaxation = {name: value for name, value in results if value != "" and atoms.info.get(name) != value}
    write_values(atoms.info, {**relaxation, **rank}, replaced=ENERGY_PREDICTION)
    return atoms


RELAXED_INFO = ("model_energy", "model_fmax", "model_steps", "converged")


def relax_atoms(structures: Sequence[Atoms], predictor: Predictor, fmax: float, steps: int) -> list[Atoms]:
    """Relax structures to the nearest local minima of a model, with :data:`RELAXED_INFO` in their ``info``."""
    with FrameProgress("frames relaxed", len(structures), estimate=False) as progress:
        return list(BatchedEnergy(predictor.model).relax(structures, fmax, steps, progress.advance))


def relax_candidates(screening: Screening, predictor: Predictor, fmax: float, steps: int) -> Screening:
    """Relax the candidates of a screening to the nearest local minima of the model.

    Energies, ranks and spreads become those of the relaxed structures. Candidates without a finite energy are omitted,
    and candidates that leave the geometries of the training set are stopped there and ranked last, both with a warning.
    Batches of about a million pairs of atoms bound the memory.

    Raises:
        InputError: If none can be relaxed.
    """
    relaxed: list[Candidate] = []
    left: list[str] = []
    minima = relax_atoms([candidate.atoms for candidate in screening.candidates], predictor, fmax, steps)
    for start, atoms in zip(screening.candidates, minima, strict=True):
        results = {name: atoms.info[name] for name in RELAXED_INFO}
        relaxation = {"initial_pred_energy": start.energy, **results, LEFT_RANGE: atoms.info.get(LEFT_RANGE, "")}
        candidate = replace(start, atoms=atoms, energy=results["model_energy"], relaxation=relaxation)
        if not candidate.inside:
            left.append(f"{start.file}, frame {start.frame}: {atoms.info[LEFT_RANGE]}")
        if np.isfinite(candidate.energy) and np.isfinite(atoms.positions).all():
            relaxed.append(candidate)
    warn_of_left_range(left, len(minima))
    lost = len(screening.candidates) - len(relaxed)
    if lost:
        warnings.warn(f"omitted {count_of(lost, 'frame')} without a finite energy after the relaxation", stacklevel=2)
    if screening.candidates and not relaxed:
        raise InputError("no frame has a finite energy after the relaxation: the model cannot relax these frames")
    if relaxed and predictor.gives_spread:
        z, pos, ptr, _, _ = arrays_of([one.atoms for one in relaxed])
        spreads = cast(Tensor, predictor(z, pos, ptr).spread)
        relaxed = [replace(one, spread=float(spread)) for one, spread in zip(relaxed, spreads, strict=True)]
    ranked = list(_with_ranks(relaxed))
    energy = np.full(len(screening.energy), np.nan)
    energy[[candidate.index for candidate in ranked]] = [candidate.energy for candidate in ranked]
    return replace(screening, candidates=ranked, relaxed=energy, num_left_range=len(left))


def warn_of_left_range(reasons: Sequence[str], num_frames: int):
    """Warn about frames that left the geometries of the training set."""
    if reasons:
        warnings.warn(
            f"{len(reasons)} of {num_frames} frames left the geometries that the model was trained on while they were "
            f"relaxed; they were stopped there and are ranked last (the first: {reasons[0]})",
            stacklevel=3,
        )


def _with_ranks(candidates: list[Candidate]) -> Iterator[Candidate]:
    """Sort candidates by composition and energy; those that left the geometries of the training set are last."""
    for kind in by_composition(candidates):
        ranks = rankdata([candidate.energy for candidate in kind], method="ordinal")
        ranks = rankdata(ranks + len(kind) * np.array([not candidate.inside for candidate in kind]), method="ordinal")
        for index in np.argsort(ranks):
            yield replace(kind[index], rank=int(ranks[index]))
