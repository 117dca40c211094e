"""Relaxation of the frames of files."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorError

from pyg_clusters.errors import one_line
from pyg_clusters.frames import BadFrame, FrameLog, good_frames, read_atoms, write_extxyz
from pyg_clusters.frames.paths import expand_paths
from pyg_clusters.frames.provenance import at_new_positions, write_values
from pyg_clusters.frames.resume import input_settings
from pyg_clusters.frames.writing import open_output
from pyg_clusters.options.parsing import command_words
from pyg_clusters.options.relax import RelaxOptions
from pyg_clusters.progress import FrameProgress
from pyg_clusters.structures import local_minimum, named_calculator
from pyg_clusters.structures.calculators import calculator_identity, calculator_problem
from pyg_clusters.structures.relaxation import (
    LEFT_RANGE,
    BatchedEnergy,
    batched_energy,
    chunks,
    relax_chunk,
)


@dataclass
class Relaxed:
    """Result of :func:`relax_frames`.

    Attributes:
        frames: Number of frames written.
        not_converged: Number of frames that did not converge.
        left_range: Number of frames that were stopped outside the geometries in which the energy can be trusted.
        bad: Frames that were skipped.
    """

    frames: int
    not_converged: int
    left_range: int
    bad: list[BadFrame]


def relax_frames(options: RelaxOptions) -> Relaxed:
    """Relax frames to the nearest local minima and write them.

    Raises:
        InputError: If a frame or the calculator cannot be used, or the file exists or belongs to another run.
    """
    batched = batched_energy(options.calculator)
    overwrite = options.overwrite or batched is None  # otherwise the log of frames decides what may be replaced
    command = command_words("relax", options)
    with open_output(Path(options.out), command, inputs=options.frames, overwrite=overwrite):

        def problem(atoms: Atoms) -> str | None:
            return batched.problem(atoms) if batched else calculator_problem(options.calculator, atoms)

        bad: list[BadFrame] = []
        read = read_atoms(options.frames, problem=problem, on_bad=options.on_bad, fragments=options.fragments)
        frames = (frame.atoms for frame in good_frames(read, bad))
        outcomes = list(_relax_batched(frames, options, batched) if batched else _relax_one_by_one(frames, options))
    not_converged = sum(not outcome.converged for outcome in outcomes)
    return Relaxed(len(outcomes), not_converged, sum(outcome.left_range for outcome in outcomes), bad)


class Outcome(NamedTuple):
    """Outcome of the relaxation of a frame."""

    converged: bool
    left_range: bool

    @classmethod
    def of(cls, atoms: Atoms) -> "Outcome":
        """The outcome written with a frame."""
        return cls(bool(atoms.info["converged"]), LEFT_RANGE in atoms.info)


def relax_frame(atoms: Atoms, calculator: Calculator, name: str, fmax: float, steps: int) -> Atoms:
    """Relaxed copy of a frame; if the calculator fails, the unchanged frame, not converged."""
    try:
        found = local_minimum(atoms, calculator, fmax=fmax, max_steps=steps)
    except CalculatorError as error:
        failed = atoms.copy()
        failed.calc = atoms.calc
        reason = one_line(error)
        write_values(failed.info, {f"{name}_error": reason, "converged": False})
        return failed
    relaxed = at_new_positions(atoms, found.atoms.positions)
    if found.left_range is not None:
        relaxed.info[LEFT_RANGE] = found.left_range
    relaxed.info |= {
        f"{name}_energy": found.energy,
        f"{name}_fmax": found.fmax,
        f"{name}_steps": found.steps,
        "converged": found.converged,
    }
    return relaxed


def _relax_batched(frames: Iterable[Atoms], options: RelaxOptions, by: BatchedEnergy) -> list[Outcome]:
    outcomes: list[Outcome] = []

    def relaxed() -> Iterator[Atoms]:
        with FrameProgress("frames relaxed") as progress:
            for chunk in chunks(frames):
                for atoms in relax_chunk(chunk, by, options.fmax, options.steps, progress.advance):
                    outcomes.append(Outcome.of(atoms))
                    yield atoms

    write_extxyz(Path(options.out), relaxed())
    return outcomes


def _relax_one_by_one(frames: Iterable[Atoms], options: RelaxOptions) -> Iterator[Outcome]:
    """Outcomes of all frames, those of an earlier run included."""
    calculator = named_calculator(options.calculator, ())
    name = options.calculator.rpartition(":")[2].lower()
    settings = {key: getattr(options, key) for key in ("fmax", "steps", "on_bad", "fragments")}
    settings |= {"calculator": calculator_identity(options.calculator)}
    settings |= input_settings(expand_paths(options.frames))
    log = FrameLog(Path(options.out), settings, overwrite=options.overwrite)
    with FrameProgress("frames relaxed") as progress:
        for atoms, relaxed in zip_longest(frames, log.frames):
            if relaxed is None:
                relaxed = relax_frame(atoms, calculator, name, options.fmax, options.steps)
                log.append(relaxed)
            yield Outcome.of(relaxed)
            progress.advance()
