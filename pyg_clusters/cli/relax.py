"""``pyg-clusters relax``."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorError
from jsonargparse import Namespace

from pyg_clusters.errors import InputError
from pyg_clusters.frames import AtomsFrame, BadFrame, FrameLog, read_atoms, write_extxyz
from pyg_clusters.frames.checks import list_bad
from pyg_clusters.frames.outputs import open_output
from pyg_clusters.frames.paths import expand_paths
from pyg_clusters.frames.provenance import at_new_positions, set_origin, write_values
from pyg_clusters.frames.resume import input_settings
from pyg_clusters.options.common import add_check_options
from pyg_clusters.options.parsing import parse, verb_parser
from pyg_clusters.structures import local_minimum, named_calculator
from pyg_clusters.structures.calculators import CALCULATORS, calculator_identity, calculator_problem
from pyg_clusters.structures.relax_batched import (
    LEFT_RANGE,
    BatchedEnergy,
    batched_energy,
    chunks,
    relax_chunk,
    relax_progress,
)


def run(argv: Sequence[str]):
    """Writes frames at local minima."""
    parser = verb_parser(
        "relax",
        "Frames at the local minima nearest to them. Each gets, by the name of the calculator, gupta_energy (eV), "
        "gupta_fmax (eV/Å), gupta_steps, and converged; source_file and source_frame; and keeps names, groups, charge "
        "and spin. Every other value that it had belongs to the old positions and becomes initial_*. Gupta and models "
        "relax many frames at once; other calculators one by one, each written when it is done: killed and started "
        "with the same arguments they go on.",
        "pyg-clusters relax na.extxyz --calculator gupta --fmax 0.02 --steps 500 --out relaxed.extxyz",
    )
    parser.add_argument("frames", type=str, nargs="+", help="files of frames: whatever ASE reads, .xz and .gz too")
    parser.add_argument(
        "--calculator", type=str, default="gupta", help=f"energy and forces: {CALCULATORS}, or a trained model"
    )
    parser.add_argument("--fmax", type=float, default=0.02, help="largest force on an atom in the end, in eV/Å")
    parser.add_argument("--steps", type=int, default=500, help="most evaluations of energy and forces for a frame")
    add_check_options(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the file that is there")
    parser.add_argument("--out", type=Path, required=True, help="relaxed.extxyz; with gupta or a model also .extxyz.xz")
    options = parse(parser, argv)
    if not 0 < options.fmax < float("inf"):
        raise InputError(f"--fmax must be a positive force in eV/Å, got {options.fmax}")
    if options.steps < 1:
        raise InputError(f"--steps must be at least 1, got {options.steps}")
    batched = batched_energy(options.calculator)
    overwrite = options.overwrite or batched is None  # otherwise the log of frames tells what may be replaced
    with open_output(options.out, ("relax", *argv), inputs=options.frames, overwrite=overwrite):
        relax(options, batched)


def relax(options: Namespace, batched: BatchedEnergy | None):
    """Relax the frames that are not relaxed yet, and write them.

    Args:
        options: Of the command line.
        batched: Energy of many frames at once, where the calculator is one.
    """

    def problem(atoms: Atoms) -> str | None:
        return batched.problem(atoms) if batched else calculator_problem(options.calculator, atoms)

    frames = _with_origins(
        read_atoms(options.frames, problem=problem, on_bad=options.on_bad, fragments=options.fragments)
    )
    bad: list[BadFrame] = []
    outcomes = _relax_batched(frames, bad, options, batched) if batched else _relax_one_by_one(frames, bad, options)
    list_bad(bad)
    print(
        f"{len(outcomes)} frames in {options.out}, {sum(not one.converged for one in outcomes)} of them not converged"
    )
    if lost := sum(one.left_range for one in outcomes):
        print(
            f"{lost} of these were stopped where they left the geometries that the energy is to be trusted in "
            f"(info {LEFT_RANGE} says how): their energies mean nothing"
        )


class Outcome(NamedTuple):
    """How the relaxation of a frame ended."""

    converged: bool
    left_range: bool

    @classmethod
    def of(cls, atoms: Atoms) -> "Outcome":
        """The outcome that is written beside a frame."""
        return cls(bool(atoms.info["converged"]), LEFT_RANGE in atoms.info)


def _with_origins(frames: Iterable[AtomsFrame | BadFrame]) -> Iterator[AtomsFrame | BadFrame]:
    for frame in frames:
        if isinstance(frame, AtomsFrame):
            set_origin(frame.atoms.info, frame.file, frame.number)
        yield frame


def relax_frame(atoms: Atoms, calculator: Calculator, name: str, fmax: float, steps: int) -> Atoms:
    """A relaxed copy of a frame; with an error of the calculator, the frame as it was, not converged."""
    try:
        found = local_minimum(atoms, calculator, fmax=fmax, max_steps=steps)
    except CalculatorError as error:
        failed = atoms.copy()
        failed.calc = atoms.calc
        reason = " ".join(str(error).split()) or type(error).__name__
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


def _relax_batched(
    frames: Iterable[AtomsFrame | BadFrame], bad: list[BadFrame], options: Namespace, by: BatchedEnergy
) -> list[Outcome]:
    outcomes: list[Outcome] = []

    def relaxed() -> Iterator[Atoms]:
        with relax_progress() as progress:
            task = progress.add_task("frames", total=None)
            for chunk in chunks(frames, bad):
                for atoms in relax_chunk(chunk, by, options.fmax, options.steps, lambda n: progress.advance(task, n)):
                    outcomes.append(Outcome.of(atoms))
                    yield atoms

    write_extxyz(options.out, relaxed())
    return outcomes


def _relax_one_by_one(
    frames: Iterable[AtomsFrame | BadFrame], bad: list[BadFrame], options: Namespace
) -> list[Outcome]:
    """Outcomes of all frames, those of an earlier run included."""
    calculator = named_calculator(options.calculator, ())
    name = options.calculator.rpartition(":")[2].lower()
    settings = {key: getattr(options, key) for key in ("fmax", "steps", "on_bad", "fragments")}
    settings |= {"calculator": calculator_identity(options.calculator)}
    settings |= input_settings(expand_paths(options.frames))
    log = FrameLog(options.out, settings, overwrite=options.overwrite)
    outcomes = [Outcome.of(atoms) for atoms in log.frames]
    done = len(outcomes)
    with relax_progress() as progress:
        task = progress.add_task("frames", total=None)
        number = 0
        for frame in frames:
            if isinstance(frame, BadFrame):
                bad.append(frame)
                continue
            number += 1
            if number > done:
                atoms = relax_frame(frame.atoms, calculator, name, options.fmax, options.steps)
                log.append(atoms)
                outcomes.append(Outcome.of(atoms))
            progress.advance(task)
    return outcomes
