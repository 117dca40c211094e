"""Results of DFT runs, each assigned to the candidate of a screening that the run started from."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms
from scipy.spatial.distance import pdist

from pyg_clusters.errors import InputError
from pyg_clusters.frames import expand_paths, read_blocks
from pyg_clusters.frames.provenance import origin_in

NUMBERED: re.Pattern[str] = re.compile(r"(\d{4,})_[A-Z]")
"""A folder that ``screen --write`` made for a candidate."""

SAME_START: float = 0.005
"""A run starts from a candidate if their pair distances differ by less, root mean square in Å: coordinates of three
decimals set them 0.0005 Å apart, distinct structures are further apart by far."""

SAME_MINIMUM: float = 0.1
"""A relaxed structure without its start is that of a candidate if their pair distances differ by less, and by less than
half as much as from any other candidate."""


@dataclass
class DftResult:
    """The energy that a DFT run gave a candidate.

    Attributes:
        candidate: Number of the candidate, from 1.
        energy: In eV, whatever it counts from.
        file: The output.
    """

    candidate: int
    energy: float
    file: str


@dataclass
class _Run:
    """Steps of one run in an output: the candidates that it may have started from, the last structure and energy."""

    file: str
    frame: int
    atoms: Atoms
    energy: float
    starts: list[int] = field(default_factory=list)


def read_results(files: Iterable[str | Path], key: str, candidates: Sequence[Atoms]) -> list[DftResult]:
    """Energies of candidates from outputs of another program, by the order of the candidates.

    An output belongs to the candidate that its first structure is, whatever its name; the last structure counts. A file
    may hold the runs of several candidates after one another. Frames that say by ``source_file`` and ``source_frame``
    which candidate they were belong to that. An output without its starting structure belongs to the candidate of the
    number of its folder (``0001_Ga46``), or else to the one that is clearly nearest to the relaxed structure.

    Args:
        files: The outputs.
        key: Name of the energy in eV.
        candidates: The candidates.

    Raises:
        InputError: If an output belongs to no candidate, or it is not clear to which, or two belong to the same.
    """
    matcher = _Matcher(candidates)
    runs = [run for file in expand_paths(files) for run in _runs(file, key, matcher)]
    taken: dict[int, _Run] = {}
    for run in sorted(runs, key=lambda run: (not run.starts, len(run.starts))):
        number = matcher.assign(run, taken)
        if number in taken:
            raise InputError(
                f"{run.file}: candidate {number + 1} was found in {taken[number].file} already; leave one out"
            )
        if not np.isfinite(run.energy):
            raise InputError(f"{run.file}: {key!r} must be a number, got {run.energy}; leave the file out")
        taken[number] = run
    return [DftResult(number + 1, taken[number].energy, taken[number].file) for number in sorted(taken)]


def _runs(file: Path, key: str, matcher: "_Matcher") -> list[_Run]:
    """The runs in an output: a frame that is a candidate begins one, unless it is where the run started."""
    runs: list[_Run] = []
    for block in read_blocks(file, properties=[key], with_atoms=True, fragments="keep", report=False):
        for atoms, number, energy in zip(block.atoms or (), block.number, block.properties[key], strict=True):
            starts = matcher.starts(atoms)
            if not runs or (starts and not set(starts) & set(runs[-1].starts)):
                runs.append(_Run(str(file), int(number), atoms, float(energy), starts))
            runs[-1].atoms, runs[-1].energy = atoms, float(energy)
    return runs


class _Matcher:
    """Finds the candidate that a structure is, by origin or by distances."""

    def __init__(self, candidates: Sequence[Atoms]):
        self.formulas = [atoms.symbols.get_chemical_formula() for atoms in candidates]
        self.of_origin: dict[tuple[str, int], list[int]] = {}
        self.of_formula: dict[str, list[int]] = {}
        for number, atoms in enumerate(candidates):
            self.of_formula.setdefault(self.formulas[number], []).append(number)
            if origin := origin_in(atoms.info):
                self.of_origin.setdefault(origin, []).append(number)
        self.distances = {
            formula: np.stack([_distances(candidates[number]) for number in numbers])
            for formula, numbers in self.of_formula.items()
        }

    def starts(self, atoms: Atoms) -> list[int]:
        """The candidates that a structure may be, the nearest first; copies of one another are several."""
        formula = atoms.symbols.get_chemical_formula()
        origin = origin_in(atoms.info)
        named = self.of_origin.get(origin, []) if origin else []
        if len(named) == 1 and self.formulas[named[0]] == formula:
            return named
        numbers, apart = self._apart(atoms)
        return [numbers[place] for place in np.argsort(apart, kind="stable") if apart[place] < SAME_START]

    def assign(self, run: _Run, taken: Iterable[int]) -> int:
        """The candidate of a run, from 0."""
        number = _number_of(Path(run.file))
        if run.starts:
            free = [start for start in run.starts if start not in taken]
            return number if number in free else (free or run.starts)[0]
        formula = run.atoms.symbols.get_chemical_formula()
        if number is not None:
            if number >= len(self.formulas):
                raise InputError(
                    f"{run.file}: there is no candidate {number + 1}, there are {len(self.formulas)}; leave it out"
                )
            if self.formulas[number] != formula:
                raise InputError(f"{run.file}: {formula}, but candidate {number + 1} is {self.formulas[number]}")
            return number
        numbers, apart = self._apart(run.atoms)
        if not numbers:
            raise InputError(f"{run.file}: {formula}, but no candidate is; leave it out")
        order = np.argsort(apart, kind="stable")
        nearest, second = apart[order[0]], apart[order[1]] if len(order) > 1 else np.inf
        if nearest < min(SAME_MINIMUM, second / 2):
            return numbers[order[0]]
        raise InputError(
            f"{run.file}, frame {run.frame}: starts from no candidate (the nearest, {numbers[order[0]] + 1}, is "
            f"{nearest:.3f} Å away); give an output with its first structure, or put it into a folder that begins with "
            "the number of its candidate (0001_Ga46)"
        )

    def _apart(self, atoms: Atoms) -> tuple[list[int], np.ndarray]:
        """Candidates of the composition of a structure, and how far their distances are from its, in Å."""
        numbers = self.of_formula.get(atoms.symbols.get_chemical_formula(), [])
        if not numbers:
            return [], np.zeros(0)
        known = self.distances[self.formulas[numbers[0]]]
        return numbers, np.sqrt(np.square(known - _distances(atoms)).mean(axis=1))


def _distances(atoms: Atoms) -> np.ndarray:
    """Pair distances ``[num_pairs]`` in Å, sorted among the pairs of the same elements."""
    order = np.argsort(atoms.numbers, kind="stable")
    numbers = atoms.numbers[order]
    first, second = np.triu_indices(len(numbers), 1)
    distances = pdist(atoms.positions[order])
    return distances[np.lexsort((distances, numbers[second], numbers[first]))]


def _number_of(path: Path) -> int | None:
    """The candidate, from 0, that the name of a folder says."""
    matches = (NUMBERED.match(part) for part in reversed(path.parts))
    return next((int(match[1]) - 1 for match in matches if match and int(match[1])), None)
