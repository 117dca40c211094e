"""Input files for DFT calculations of candidates, and comparison of the results with the predictions."""

import re
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write
from ase.io.formats import ioformats
from matplotlib.figure import Figure

from pyg_clusters.analysis.plots import GREY, SHELL_COLORS, legend, padded_limits, save_figure, tidy
from pyg_clusters.errors import InputError, MissingProperty, describe_error
from pyg_clusters.files import atomic_write, check_empty
from pyg_clusters.frames import expand_paths, read_blocks, write_table
from pyg_clusters.frames.block import names_found
from pyg_clusters.frames.checks import numbers
from pyg_clusters.frames.electronic_state import INITIAL_ARRAYS, electronic_state
from pyg_clusters.frames.energy_units import units_of_labels
from pyg_clusters.frames.provenance import SOURCE_FILE, SOURCE_FRAME, origin_in
from pyg_clusters.frames.writing import open_output
from pyg_clusters.metrics import metrics_by_size, mixed_zeros
from pyg_clusters.options.screening import VACUUM, CompareDFTOptions
from pyg_clusters.structures.superposition import distances_by_elements
from pyg_clusters.terminal import print_table
from pyg_clusters.units import KCAL_PER_MOL, sign_problem

RESULTS = ("dft.csv", "dft.png")

FILE_NAMES: dict[str, str] = {"vasp": "POSCAR", "aims": "geometry.in", "turbomole": "coord"}
"""File names that programs require, by ASE's name of the format."""

NUMBERED: re.Pattern[str] = re.compile(r"(\d{4,})_[A-Z]")  # matches the folder of a candidate

SAME_START: float = 0.005
"""A run starts from a candidate if their pair distances differ by less than this, root mean square in Å: rounding
coordinates to three decimals changes them by 0.0005 Å, whereas distinct structures differ by far more."""


def write_folders(
    folder: Path, frames: Sequence[Atoms], file_format: str, vacuum: float = VACUUM, *, overwrite: bool = False
):
    """Write each structure to its own folder, numbered from 1, such as ``0001_Ga46/POSCAR``."""
    if not overwrite:
        check_empty(folder)
    frames = [with_state(atoms) for atoms in frames]
    for number, atoms in enumerate(frames, start=1):
        if unstated := _unstated(atoms, file_format):
            warnings.warn(
                f"{folder}: files of the format {file_format} do not state the {unstated} of candidate {number}: set "
                "it in the input of your program, for all candidates that state it",
                stacklevel=2,
            )
            break
    names = [f"{number:04d}_{atoms.symbols.get_chemical_formula()}" for number, atoms in enumerate(frames, start=1)]
    for name, atoms in zip(names, frames, strict=True):
        with atomic_write(folder / name / _file_name(file_format)) as path:
            _write(path, boxed(atoms, vacuum), file_format)


def boxed(atoms: Atoms, vacuum: float = VACUUM) -> Atoms:
    """Copy of a structure, centred in a cubic periodic box, with the atoms sorted by element.

    ``vacuum`` in Å separates the cluster from the box along its longest extent; with 0 there is no box, for molecular
    programs.
    """
    copy = atoms[np.argsort(atoms.numbers, kind="stable")]
    copy.pbc = vacuum > 0
    if vacuum > 0:
        copy.cell = np.eye(3) * (float(np.ptp(copy.positions, axis=0).max()) + 2 * vacuum)
        copy.positions += copy.cell.diagonal() / 2 - (copy.positions.max(axis=0) + copy.positions.min(axis=0)) / 2
    else:
        copy.cell = None
    return copy


def with_state(atoms: Atoms) -> Atoms:
    """Copy of a structure with the charge and spin that it states as ASE's initial charges and magnetic moments."""
    copy, state = atoms.copy(), electronic_state(atoms)
    for name, total in zip(INITIAL_ARRAYS, (state.charge, state.unpaired), strict=True):
        if total and name not in copy.arrays:
            copy.set_array(name, np.full(len(copy), total / len(copy)))
    return copy


def _unstated(atoms: Atoms, file_format: str) -> str | None:
    """Charge, or multiplicity above the lowest, of a structure that a file of this format does not hold, if any."""
    state = electronic_state(atoms)
    values = {"charge": state.charge, "multiplicity": 0 if state.is_lowest_spin else state.multiplicity}
    with tempfile.TemporaryDirectory() as folder:

        def text(*arrays: str) -> str:
            bare = Atoms(atoms.numbers, atoms.positions)
            for name in arrays:
                if name in atoms.arrays:
                    bare.set_array(name, atoms.arrays[name])
            path = Path(folder) / _file_name(file_format)
            _write(path, boxed(bare), file_format)
            return path.read_text(encoding="utf-8", errors="replace")

        for (name, value), other in zip(values.items(), reversed(INITIAL_ARRAYS), strict=True):
            if value and text(other) == text(*INITIAL_ARRAYS):
                return f"{name} ({value:+d})" if name == "charge" else f"{name} ({value})"
    return None


def check_format(file_format: str):
    """Check that ASE can write structures in a format."""
    known = ioformats.get(file_format)
    if known is None or not known.can_write:
        raise InputError(
            f"ASE cannot write the format {file_format!r}; it writes vasp, aims, gaussian-in, nwchem-in, xyz, ..."
        )
    with tempfile.TemporaryDirectory() as trial:
        _write(Path(trial) / _file_name(file_format), boxed(Atoms("H")), file_format)


def _file_name(file_format: str) -> str:
    extensions = ioformats[file_format].extensions
    return FILE_NAMES.get(file_format, f"candidate.{extensions[0] if extensions else file_format}")


def _write(path: Path, atoms: Atoms, file_format: str):
    try:
        write(path, atoms, format=file_format)
    except OSError:
        raise
    except Exception as error:  # ASE's writers raise errors of many types, for example for missing settings
        reason = describe_error(error)
        raise InputError(
            f"ASE cannot write format {file_format!r} without settings ({reason}); use vasp or xyz"
        ) from error


@dataclass
class Comparison:
    """Comparison of the DFT results of candidates with the predictions."""

    columns: dict[str, list]  #: Columns of ``dft.csv``.
    num_candidates: int  #: Number of candidates of the screening.
    folder: Path  #: Folder of the screening.

    def print(self):
        """Print the table, and the names of the files."""
        headings = ("", "results", "MAE without offset (kcal/mol)", "Spearman", "lowest by DFT", "its predicted rank")
        print_table("DFT and predictions", headings, self.rows())
        paths = ", ".join(str(self.folder / name) for name in RESULTS)
        print(f"{len(self.columns['candidate'])} of {self.num_candidates} candidates: {paths}")

    def rows(self) -> Iterator[list[object]]:
        """Agreement and lowest DFT energy of each composition."""
        arrays = {name: np.asarray(values) for name, values in self.columns.items()}
        for formula in dict.fromkeys(self.columns["composition"]):
            rows = arrays["composition"] == formula
            predicted, energy = arrays["pred_above_mean"][rows], arrays["dft_above_mean"][rows]
            (row,) = metrics_by_size(predicted, energy, arrays["size"][rows])
            error = row["mae_kcal_mol"] if len(energy) > 1 else float("nan")  # a single result is its own mean
            lowest = int(np.argmin(energy))
            rank = int((predicted < predicted[lowest]).sum()) + 1
            name = f"candidate {arrays['candidate'][rows][lowest]}"
            yield [formula, len(energy), error, row["spearman"], name, rank]


def compare_dft(options: CompareDFTOptions) -> Comparison:
    """Compare DFT results for the candidates of a screening with the predictions, and write a table and a figure.

    Raises:
        InputError: If the folder contains no screening, an output matches no candidate, or the results already exist.
    """
    folder = Path(options.screening)
    screened = folder / "candidates.extxyz"
    if not screened.is_file():
        raise InputError(f"{folder}: contains no candidates.extxyz; give the folder of a screening")
    with open_output(options, folder, results=RESULTS):
        names = ("pred_energy", SOURCE_FILE, SOURCE_FRAME)
        blocks = list(read_blocks(screened, properties=names, with_atoms=True, on_bad="skip", on_missing="skip"))
        for frame in (frame for block in blocks for frame in block.unreadable):
            raise InputError(f"{frame}; rewrite the candidates with pyg-clusters screen")
        candidates = [atoms for block in blocks for atoms in block.atoms or ()]
        columns = _columns(_assigned_runs(options.files, options.key, candidates), candidates)
        mixed = mixed_zeros(columns["dft_energy"], columns["size"], columns["composition"])
        if problem := mixed or sign_problem(options.key, min(columns["dft_energy"], default=0.0)):
            warnings.warn(problem, stacklevel=2)
        write_table(folder / RESULTS[0], columns)
        arrays = [np.asarray(columns[name]) for name in ("pred_above_mean", "dft_above_mean", "composition")]
        save_figure(predicted_against_dft(*arrays), folder / RESULTS[1])
    return Comparison(columns, len(candidates), folder)


def _columns(runs: dict[int, "_Run"], candidates: Sequence[Atoms]) -> dict[str, list]:
    """Columns of predicted and DFT energies, absolute and relative to the mean of the composition."""
    atoms = [candidates[index] for index in runs]
    composition = np.array([each.symbols.get_chemical_formula() for each in atoms])
    predicted = np.array([float(each.info["pred_energy"]) for each in atoms])
    energy = np.array([run.energy for run in runs.values()])
    above = np.zeros((2, len(runs)))
    for formula in np.unique(composition):
        rows = composition == formula
        above[:, rows] = [values[rows] - values[rows].mean() for values in (predicted, energy)]
    return {
        "candidate": [index + 1 for index in runs],
        SOURCE_FILE: [str(each.info[SOURCE_FILE]) for each in atoms],
        SOURCE_FRAME: [int(each.info[SOURCE_FRAME]) for each in atoms],
        "size": [len(each) for each in atoms],
        "composition": composition.tolist(),
        "pred_energy": predicted.tolist(),
        "dft_energy": energy.tolist(),
        "pred_above_mean": above[0].tolist(),
        "dft_above_mean": above[1].tolist(),
        "output": [run.file for run in runs.values()],
    }


@dataclass
class _Run:
    """One run in an output: its last structure and energy, and the candidates that it may have started from."""

    file: str
    frame: int
    atoms: Atoms
    energy: float
    starts: list[int] = field(default_factory=list)


def _assigned_runs(files: Iterable[str | Path], key: str, candidates: Sequence[Atoms]) -> dict[int, _Run]:
    """Runs in outputs of another program by the index of their candidate, in the order of the candidates.

    An output belongs to the candidate that equals its first structure, whatever the file name; the energy is that of
    its last structure. A file may contain successive runs of several candidates. Frames with ``source_file`` and
    ``source_frame`` belong to the candidate with the same values. An output without its first structure belongs to the
    candidate whose number is in the name of its folder (``0001_Ga46``).

    Raises:
        InputError: If an output matches no candidate or several, or one of another charge, or two outputs match the
            same one.
    """
    matcher = _Matcher(candidates)
    try:
        runs = [run for file in expand_paths(files) for run in _runs(file, key, matcher)]
    except MissingProperty as error:
        empty = str(error).endswith(names_found((), ()))
        remedy = "give the output of the calculation, not its input" if empty else "name the energy with --key"
        raise InputError(f"{error}; {remedy}") from error
    taken: dict[int, _Run] = {}
    for run in sorted(runs, key=lambda run: (not run.starts, len(run.starts))):
        index = matcher.assign(run, taken)
        if index in taken:
            raise InputError(
                f"{run.file}: candidate {index + 1} already has the result in {taken[index].file}; omit one of them"
            )
        expected = electronic_state(candidates[index]).charge
        if (charge := _charge(run.atoms, expected)) != expected:
            raise InputError(
                f"{run.file}: its charge is {charge}, that of candidate {index + 1} is {expected}; omit the file"
            )
        taken[index] = run
    return dict(sorted(taken.items()))


def _charge(atoms: Atoms, default: int) -> int:
    """Charge that an output states, or the default if it states none."""
    with suppress(InputError):  # its spin is invalid
        return electronic_state(atoms, default).charge
    return default


def _runs(file: Path, key: str, matcher: "_Matcher") -> list[_Run]:
    """Runs in an output: a frame that equals a candidate starts one, unless it is the start of the current run."""
    runs: list[_Run] = []
    unit = units_of_labels([file], key)[str(file)]
    for block in read_blocks(file, properties=[key], with_atoms=True, fragments="keep", report=False):
        for atoms, frame, energy in zip(block.atoms or (), block.number, numbers(block, key) * unit, strict=True):
            starts = matcher.starts(atoms)
            if not runs or (starts and not set(starts) & set(runs[-1].starts)):
                runs.append(_Run(str(file), int(frame), atoms, float(energy), starts))
            runs[-1].atoms, runs[-1].energy = atoms, float(energy)
    return runs


class _Matcher:
    """Match structures to candidates by origin or by distances."""

    def __init__(self, candidates: Sequence[Atoms]):
        self.formulas = [atoms.symbols.get_chemical_formula() for atoms in candidates]
        self.of_origin: dict[tuple[str, int], list[int]] = {}
        self.of_formula: dict[str, list[int]] = {}
        for index, atoms in enumerate(candidates):
            self.of_formula.setdefault(self.formulas[index], []).append(index)
            if origin := origin_in(atoms.info):
                self.of_origin.setdefault(origin, []).append(index)
        self.distances = {
            formula: np.stack([distances_by_elements(candidates[index]) for index in indices])
            for formula, indices in self.of_formula.items()
        }

    def starts(self, atoms: Atoms) -> list[int]:
        """Candidates that equal a structure, the nearest first; several if they are copies of each other."""
        formula = atoms.symbols.get_chemical_formula()
        origin = origin_in(atoms.info)
        named = self.of_origin.get(origin, []) if origin else []
        if len(named) == 1 and self.formulas[named[0]] == formula:
            return named
        if formula not in self.distances:
            return []
        indices, known = self.of_formula[formula], self.distances[formula]
        difference = np.sqrt(np.square(known - distances_by_elements(atoms)).mean(axis=1))
        return [indices[each] for each in np.argsort(difference, kind="stable") if difference[each] < SAME_START]

    def assign(self, run: _Run, taken: Iterable[int]) -> int:
        """Index of the candidate of a run."""
        numbers = (NUMBERED.match(part) for part in reversed(Path(run.file).parts))
        index = next((int(match[1]) - 1 for match in numbers if match and int(match[1])), None)
        if run.starts:
            free = [start for start in run.starts if start not in taken]
            return index if index in free else (free or run.starts)[0]
        formula = run.atoms.symbols.get_chemical_formula()
        if index is not None:
            if index >= len(self.formulas):
                raise InputError(
                    f"{run.file}: there are only {len(self.formulas)} candidates, not {index + 1}; omit the file"
                )
            if self.formulas[index] != formula:
                raise InputError(f"{run.file}: {formula}, but candidate {index + 1} is {self.formulas[index]}")
            return index
        if formula not in self.distances:
            raise InputError(f"{run.file}: no candidate is {formula}; omit the file")
        raise InputError(
            f"{run.file}, frame {run.frame}: does not start from a candidate; give an output with its first structure, "
            "or put it into a folder with the number of its candidate in the name (0001_Ga46)"
        )


def predicted_against_dft(predicted: np.ndarray, dft: np.ndarray, composition: np.ndarray) -> Figure:
    """Predicted against DFT energies of candidates in eV, each relative to the mean of its composition."""
    predicted, dft = (np.asarray(values, dtype=float) * KCAL_PER_MOL for values in (predicted, dft))
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    tidy(axes, "DFT, above the mean / kcal mol⁻¹", "predicted, above the mean / kcal mol⁻¹")
    limits = padded_limits(np.concatenate([predicted, dft]))
    axes.plot(limits, limits, color=GREY, linewidth=1.0, zorder=1)
    formulas = list(dict.fromkeys(composition.tolist()))
    for number, formula in enumerate(formulas):
        rows = composition == formula
        color = SHELL_COLORS[number % len(SHELL_COLORS)]
        axes.scatter(dft[rows], predicted[rows], s=13, color=color, alpha=0.8, linewidths=0, label=formula, zorder=2)
    axes.set(xlim=limits, ylim=limits, box_aspect=1)
    if len(formulas) <= len(SHELL_COLORS):
        legend(axes, loc="upper left")
    return figure
