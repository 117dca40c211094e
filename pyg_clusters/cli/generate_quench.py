"""``pyg-clusters generate quench``."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from ase import Atoms
from ase.calculators.calculator import Calculator
from jsonargparse import Namespace
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pyg_clusters.errors import InputError
from pyg_clusters.frames import FrameLog
from pyg_clusters.frames.outputs import open_output
from pyg_clusters.options.parsing import parse, parse_sizes, verb_parser
from pyg_clusters.structures import (
    QuenchSettings,
    all_compositions,
    formula_of,
    isolated_energies,
    named_calculator,
    parse_formula,
    quench,
)
from pyg_clusters.structures.calculators import CALCULATORS, calculator_identity


def run(argv: Sequence[str]):
    """Writes distinct local minima, one by one."""
    default = QuenchSettings()
    parser = verb_parser(
        "generate quench",
        "Distinct local minima of clusters and alloy clusters: random compact starts, hot molecular-dynamics runs, "
        "basin-hopping moves and exchanges of unlike atoms, each quenched. Every minimum is written when it is found, "
        "with its energy and the segment of the search that it belongs to (group). Killed and started with the same "
        "arguments it goes on, and the file ends as if it had not been stopped; with a larger --count it grows.",
        "pyg-clusters generate quench --elements Cu Au --sizes 20:60 --calculator emt --count 2000 --out cuau.extxyz",
    )
    parser.add_argument("--formula", type=str, nargs="+", help="compositions, such as Cu13Au7; or --elements, --sizes")
    parser.add_argument("--elements", type=str, nargs="+", help="symbols of the elements")
    parser.add_argument("--sizes", type=str | None, help="numbers of atoms: 14:30:2,40 is 14, 16, ..., 30, 40")
    parser.add_argument(
        "--compositions",
        type=Literal["all", "mixed"],
        default="all",
        help="with --elements: all of each size, or only those with every element (mixed)",
    )
    parser.add_argument("--calculator", type=str, required=True, help=f"energy and forces: {CALCULATORS}")
    parser.add_argument("--count", type=int, default=100, help="minima in all")
    parser.add_argument("--per-segment", type=int, default=default.per_segment, help="most minima from one start")
    parser.add_argument("--seed", type=int, default=default.seed, help="another seed finds other minima")
    parser.add_argument("--fmax", type=float, default=default.fmax, help="largest force on an atom in eV/Å")
    parser.add_argument("--max-steps", type=int, default=default.max_steps, help="most evaluations of a quench")
    parser.add_argument(
        "--temperature", type=float, default=default.temperature, help="of hot runs in K, times 0.7 to 1.5 at random"
    )
    parser.add_argument("--md-steps", type=int, default=default.md_steps, help="steps of a hot run")
    parser.add_argument("--timestep", type=float, default=default.timestep, help="time step of a hot run in fs")
    parser.add_argument(
        "--no-binding", action="store_true", help="no binding_energy: if an isolated atom is beyond the calculator"
    )
    parser.add_argument("--overwrite", action="store_true", help="begin anew, whatever is in the file")
    parser.add_argument("--out", type=Path, required=True, help="minima.extxyz, which grows")
    options = parse(parser, argv)
    if options.count < 1:
        raise InputError(f"--count must be at least 1, got {options.count}")
    names = ("seed", "per_segment", "fmax", "max_steps", "temperature", "md_steps", "timestep")
    settings = QuenchSettings(**{name: getattr(options, name) for name in names})
    compositions = compositions_of(options)
    elements = list(dict.fromkeys(symbol for composition in compositions for symbol in composition))
    calculator = named_calculator(options.calculator, elements)
    isolated = None if options.no_binding else isolated_energies(calculator, elements)

    written = {
        **asdict(settings),
        "calculator": calculator_identity(options.calculator),
        "isolated": isolated,
        "compositions": options.formula or [options.elements, options.sizes, options.compositions],
        "count": options.count,
    }
    with open_output(options.out, ("generate", "quench", *argv), overwrite=True):
        log = FrameLog(options.out, written, free=("count",), overwrite=options.overwrite)
        search(log, compositions, calculator, settings, isolated, options.count)


def search(
    log: FrameLog,
    compositions: Sequence[Mapping[str, int]],
    calculator: Calculator,
    settings: QuenchSettings,
    isolated: Mapping[str, float] | None,
    count: int,
):
    """Search on after the minima of a log, to which those that are found are added.

    Args:
        log: Minima of an earlier run.
        compositions: Number of atoms by element, of each composition.
        calculator: Of energy and forces.
        settings: Of the search.
        isolated: Energies of isolated atoms in eV.
        count: Number of minima to reach.
    """
    found = len(log.frames)
    if found:
        print(f"{found} minima are in {log.path}: going on", file=sys.stderr)
    with _Progress(count, found) as progress:
        for atoms in quench(compositions, calculator, count, settings=settings, known=log.frames, isolated=isolated):
            log.append(atoms)
            found += 1
            progress.found(found, atoms)
    few = f"; nothing new was found any more, of {count} wanted" if found < count else ""
    print(f"{found} minima of {len(compositions)} compositions in {log.path}{few}")


def compositions_of(options: Namespace) -> list[dict[str, int]]:
    """What is to be searched."""
    if bool(options.formula) == bool(options.elements) or bool(options.elements) != bool(options.sizes):
        raise InputError("say what to search: either --formula Cu13Au7 ..., or --elements Cu Au --sizes 20:60")
    if options.formula:
        compositions = [parse_formula(formula) for formula in options.formula]
    else:
        mixed = options.compositions == "mixed"
        compositions = all_compositions(options.elements, parse_sizes(options.sizes), mixed=mixed)
    for composition in compositions:
        if sum(composition.values()) < 2:
            raise InputError(f"{formula_of(composition)} has one atom; a search needs two or more")
    return compositions


class _Progress:
    """A bar in a terminal, a line for each minimum elsewhere, on standard error."""

    def __init__(self, count: int, found: int):
        console = Console(stderr=True)
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        self.count, self.terminal = count, console.is_terminal
        self.bar = Progress(*columns, console=console, disable=not self.terminal, transient=True)
        self.task = self.bar.add_task("", total=count, completed=found)

    def __enter__(self) -> "_Progress":
        self.bar.start()
        return self

    def __exit__(self, *_):
        self.bar.stop()

    def found(self, number: int, atoms: Atoms):
        info = atoms.info
        text = f"{info['group']} {info['source']} {info['energy']:.4f} eV"
        self.bar.update(self.task, completed=number, description=text)
        if not self.terminal:
            print(f"{number}/{self.count} {text}", file=sys.stderr, flush=True)
