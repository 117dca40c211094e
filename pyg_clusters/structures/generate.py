"""Files of random clusters, local minima and frames of molecular dynamics."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers

from pyg_clusters.composition import all_compositions, formula_of, parse_formula
from pyg_clusters.errors import InputError, one_line
from pyg_clusters.files import file_fingerprint
from pyg_clusters.frames import AtomsFrame, BadFrame, FrameLog, good_frames, read_atoms, write_extxyz
from pyg_clusters.frames.checks import no_usable_frame
from pyg_clusters.frames.electronic_state import electronic_state
from pyg_clusters.frames.paths import expand_paths
from pyg_clusters.frames.writing import open_output
from pyg_clusters.options.parsing import parse_sizes
from pyg_clusters.options.structures import HotOptions, QuenchOptions, QuenchSettings, SbldaOptions
from pyg_clusters.structures.calculators import (
    FAILURES,
    calculate,
    calculator_identity,
    calculator_problem,
    check_calculator,
    named_calculator,
)
from pyg_clusters.structures.quench import heated, isolated_energies, quench
from pyg_clusters.structures.sblda import sblda
from pyg_clusters.terminal import ItemProgress, count_of, counting

SODIUM = {"mu1": 3.50, "mu2": 3.60}  # default mean bond lengths of sodium in Å


@dataclass
class Generated:
    """Generated clusters in a file."""

    count: int  #: Number of clusters in the file.
    summary: str  #: Type of the clusters, name of the file and remarks.
    bad: list[BadFrame] = field(default_factory=list)  #: Skipped frames.

    def __str__(self) -> str:
        return f"{self.count} {self.summary}"


def generate_sblda(options: SbldaOptions) -> Generated:
    """Write random clusters to a file; see :func:`~pyg_clusters.structures.sblda`.

    Raises:
        InputError: If the element is unknown or has no default bond lengths, a size is invalid, or the file exists.
    """
    sizes = parse_sizes(options.sizes)
    if options.element not in atomic_numbers:
        raise InputError(f"--element: there is no chemical element {options.element!r}")
    lengths = {name: getattr(options, name) for name in ("mu1", "mu2", "sigma1", "sigma2")}
    if options.element == "Na":
        lengths |= {name: value for name, value in SODIUM.items() if lengths[name] is None}
    if None in lengths.values():
        raise InputError(f"--mu1 and --mu2 have no default for {options.element}: specify its bond lengths in Å")
    clusters = _random_clusters(options.element, sizes, options.count, options.seed, lengths)
    total = len(sizes) * options.count
    with open_output(options):
        write_extxyz(Path(options.out), counting(clusters, lambda _: 1, total))
    return Generated(total, f"clusters of {options.element} in {options.out}")


def generate_quench(options: QuenchOptions) -> Generated:
    """Search for distinct local minima and append each to a file; see :func:`~pyg_clusters.structures.quench`.

    Raises:
        InputError: If a composition or the calculator is invalid, or the file belongs to another search.
    """
    compositions = _compositions(options)
    elements = list(dict.fromkeys(symbol for composition in compositions for symbol in composition))
    calculator = named_calculator(options.calculator, elements)
    atom_energies = isolated_energies(calculator, elements)
    job: dict[str, object] = {
        **{setting.name: getattr(options, setting.name) for setting in fields(QuenchSettings)},
        "calculator": calculator_identity(options.calculator),
        "isolated": atom_energies,
        "compositions": [*(options.formula or (options.elements, options.sizes, options.compositions))],
        "count": options.count,
    }
    with open_output(options, overwrite=True):
        log, count = _resumed(options, job)
        minima = quench(
            compositions, calculator, options.count, settings=options, known=log.frames, isolated=atom_energies
        )
        formulas = {atoms.get_chemical_formula() for atoms in log.frames}
        with ItemProgress(options.count, count) as progress:
            for atoms in minima:
                log.append(atoms)
                formulas.add(atoms.get_chemical_formula())
                count += 1
                info = atoms.info
                progress.advance(f"{info['group']} {info['source']} {info['energy']:.4f} eV")
    if not count:
        raise InputError(
            "no minimum was found: the calculator failed, or no cluster converged in one piece; increase --steps, or "
            "use another calculator"
        )
    few = f"; no further minima were found ({options.count} requested)" if count < options.count else ""
    some = f"{len(formulas)} of " if len(formulas) < len(compositions) else ""
    return Generated(count, f"minima of {some}{count_of(len(compositions), 'composition')} in {options.out}{few}")


def generate_hot(options: HotOptions) -> Generated:
    """Write molecular-dynamics frames with energies, forces and the groups of the clusters from which they started.

    Positions are rounded to 0.0001 Å before the energies and forces are calculated.

    Raises:
        InputError: If a frame or the calculator cannot be used, there are fewer clusters than requested frames, or the
            file was written with other settings.
    """
    names = ("seed", "min_temperature", "max_temperature", "min_steps", "max_steps", "timestep", "count")
    with open_output(options, overwrite=True):
        clusters, bad = _clusters(options)
        elements = sorted({symbol for frame in clusters for symbol in frame.atoms.get_chemical_symbols()})
        calculator = named_calculator(options.calculator, elements)
        atom_energies = isolated_energies(calculator, elements)
        job: dict[str, object] = {
            **{name: getattr(options, name) for name in names},
            "calculator": calculator_identity(options.calculator),
            "isolated": atom_energies,
            "frames": [file_fingerprint(file) for file in expand_paths(options.frames)],
        }
        log, done = _resumed(options, job)
        order = np.random.default_rng(options.seed).permutation(len(clusters))[: options.count]
        with ItemProgress(options.count, done) as progress:
            for index in order[done:].tolist():
                atoms = _hot(clusters[index], index, calculator, atom_energies, options)
                log.append(atoms)
                progress.advance(f"{atoms.get_chemical_formula()} {atoms.info['temperature']} K")
    return Generated(max(done, options.count), f"frames with forces in {options.out}", bad)


def _resumed(options: QuenchOptions | HotOptions, job: Mapping[str, object]) -> tuple[FrameLog, int]:
    """Open the log of a resumable job, and return it with the number of frames in it."""
    log = FrameLog(Path(options.out), job, free=("count",), overwrite=options.overwrite)
    if log.frames:
        print(f"{count_of(len(log.frames), 'frame')} in {log.path}: resuming", file=sys.stderr)
    return log, len(log.frames)


def _clusters(options: HotOptions) -> tuple[list[AtomsFrame], list[BadFrame]]:
    """Read the clusters to start from, and the skipped frames; raise an error if there are too few clusters."""
    check_calculator(options.calculator)
    problem, bad = partial(calculator_problem, options.calculator), list[BadFrame]()
    frames = read_atoms(options.frames, problem=problem, on_bad=options.on_bad, fragments=options.fragments)
    clusters = list(good_frames(frames, bad))
    if not clusters:
        raise no_usable_frame(options.frames, bad)
    if len(clusters) < options.count:
        raise InputError(f"there are {len(clusters)} clusters to start from: --count can be {len(clusters)} at most")
    return clusters, bad


def _hot(
    start: AtomsFrame, index: int, calculator: Calculator, atom_energies: Mapping[str, float], options: HotOptions
) -> Atoms:
    """Run molecular dynamics from a cluster, seeded by the common seed and its index, and label the final frame."""
    rng = np.random.default_rng([options.seed, index])
    temperature = rng.uniform(options.min_temperature, options.max_temperature)
    steps = int(rng.integers(options.min_steps, options.max_steps, endpoint=True))
    group = start.atoms.info.get("group", f"{Path(start.file).name}-{start.number}")
    info = {"temperature": round(temperature), "source": "md", "group": group, "minimum": index}
    state = electronic_state(start.atoms)
    info |= {name: value for name in ("charge", "multiplicity") if (value := getattr(state, name))}
    try:
        hot = heated(start.atoms, calculator, rng, temperature=temperature, steps=steps, timestep=options.timestep)
        atoms = Atoms(hot.numbers, (hot.positions - hot.positions.mean(axis=0)).round(4), info=info)
        energy, forces = calculate(atoms, calculator)
    except FAILURES as error:
        raise InputError(
            f"{start.file}, frame {start.number}: molecular dynamics at {temperature:.0f} K failed "
            f"({one_line(error)}); decrease --timestep (now {options.timestep:g} fs) or --max-temperature"
        ) from error
    atoms.info["binding_energy"] = energy - sum(atom_energies[symbol] for symbol in atoms.get_chemical_symbols())
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


def _compositions(options: QuenchOptions) -> list[dict[str, int]]:
    if options.formula:
        compositions = [parse_formula(formula) for formula in options.formula]
    else:
        assert options.elements is not None and options.sizes is not None  # checked by the options
        mixed = options.compositions == "mixed"
        compositions = all_compositions(options.elements, parse_sizes(options.sizes), mixed=mixed)
    for composition in compositions:
        if sum(composition.values()) < 2:
            raise InputError(f"{formula_of(composition)} has one atom; a search needs two or more")
    return compositions


def _random_clusters(
    element: str, sizes: Sequence[int], count: int, seed: int, lengths: dict[str, float]
) -> Iterator[Atoms]:
    """Yield clusters with the seed of each in ``info``: ``sblda(n, rng=np.random.default_rng(seed), ...)``.

    It is derived from the common seed, the size, and the index among clusters of that size.
    """
    for size in sizes:
        for number in range(count):
            own = int(np.random.SeedSequence([seed, size, number]).generate_state(1, np.uint64)[0] >> 1)
            pos = sblda(size, **lengths, rng=np.random.default_rng(own))
            yield Atoms([element] * size, pos, info={"generator": "sblda", "seed": own, **lengths})
