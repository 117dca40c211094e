"""Files of generated clusters."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers

from pyg_clusters.composition import all_compositions, formula_of, parse_formula
from pyg_clusters.errors import InputError
from pyg_clusters.files import file_fingerprint
from pyg_clusters.frames import AtomsFrame, FrameLog, read_atoms, write_extxyz
from pyg_clusters.frames.paths import expand_paths
from pyg_clusters.frames.writing import open_output
from pyg_clusters.options.parsing import parse_sizes
from pyg_clusters.options.structures import HotOptions, QuenchOptions, QuenchSettings, SbldaOptions
from pyg_clusters.progress import ItemProgress, counting
from pyg_clusters.structures.calculators import calculator_identity, calculator_problem, named_calculator
from pyg_clusters.structures.quench import heated, isolated_energies, quench
from pyg_clusters.structures.sblda import sblda

SODIUM = {"mu1": 3.50, "mu2": 3.60}
"""Default bond lengths of sodium in Å."""


@dataclass
class Generated:
    """Generated clusters in a file.

    Attributes:
        count: Number of clusters in the file.
        summary: Kind and file of the clusters, and remarks.
    """

    count: int
    summary: str

    def __str__(self) -> str:
        return f"{self.count} {self.summary}"


def generate_sblda(options: SbldaOptions) -> Generated:
    """Write random clusters; see :func:`~pyg_clusters.structures.sblda`.

    Raises:
        InputError: If the element is unknown or has no default bond lengths, a size is not possible, or the file
            exists.
    """
    sizes = parse_sizes(options.sizes)
    if options.element not in atomic_numbers:
        raise InputError(f"--element: {options.element!r} is no chemical element")
    lengths = {name: getattr(options, name) for name in ("mu1", "mu2", "sigma1", "sigma2")}
    if options.element == "Na":
        lengths |= {name: value for name, value in SODIUM.items() if lengths[name] is None}
    if None in lengths.values():
        raise InputError(f"--mu1 and --mu2 have no default for {options.element}: give its bond lengths in Å")
    clusters = _random_clusters(options.element, sizes, options.count, options.seed, lengths)
    total = len(sizes) * options.count
    out = Path(options.out)
    with open_output(options):
        write_extxyz(out, counting(clusters, lambda _: 1, total))
    return Generated(total, f"clusters of {options.element} in {options.out}")


def generate_quench(options: QuenchOptions) -> Generated:
    """Search distinct local minima and append each to a file; see :func:`~pyg_clusters.structures.quench`.

    Raises:
        InputError: If a composition or the calculator is not possible, or the file belongs to another search.
    """
    compositions = _compositions(options)
    elements = list(dict.fromkeys(symbol for composition in compositions for symbol in composition))
    calculator = named_calculator(options.calculator, elements)
    isolated = None if options.no_binding else isolated_energies(calculator, elements)
    job: dict[str, object] = {
        **{field.name: getattr(options, field.name) for field in fields(QuenchSettings)},
        "calculator": calculator_identity(options.calculator),
        "isolated": isolated,
        "compositions": [*(options.formula or (options.elements, options.sizes, options.compositions))],
        "count": options.count,
    }
    with open_output(options, overwrite=True):
        log = FrameLog(Path(options.out), job, free=("count",), overwrite=options.overwrite)
        count = len(log.frames)
        if count:
            print(f"{count} minima are in {log.path}: resuming", file=sys.stderr)
        minima = quench(compositions, calculator, options.count, settings=options, known=log.frames, isolated=isolated)
        with ItemProgress(options.count, count) as progress:
            for atoms in minima:
                log.append(atoms)
                count += 1
                info = atoms.info
                progress.advance(f"{info['group']} {info['source']} {info['energy']:.4f} eV")
    few = f"; no more new ones were found, of {options.count} wanted" if count < options.count else ""
    return Generated(count, f"minima of {len(compositions)} compositions in {options.out}{few}")


def generate_hot(options: HotOptions) -> Generated:
    """Write frames of molecular dynamics with energies, forces and the groups of the clusters where they started.

    Positions are written to 0.0001 Å, and the labels are those of the written positions.

    Raises:
        InputError: If a frame or the calculator cannot be used, there are fewer clusters than frames, or the file
            belongs to other settings.
    """
    names = ("seed", "min_temperature", "max_temperature", "min_steps", "max_steps", "timestep", "count")
    with open_output(options, overwrite=True):
        clusters = _clusters(options)
        elements = sorted({symbol for frame in clusters for symbol in frame.atoms.get_chemical_symbols()})
        calculator = named_calculator(options.calculator, elements)
        isolated = None if options.no_binding else isolated_energies(calculator, elements)
        job: dict[str, object] = {
            **{name: getattr(options, name) for name in names},
            "calculator": calculator_identity(options.calculator),
            "isolated": isolated,
            "frames": [file_fingerprint(file) for file in expand_paths(options.frames)],
        }
        log = FrameLog(Path(options.out), job, free=("count",), overwrite=options.overwrite)
        done = len(log.frames)
        if done:
            print(f"{done} frames are in {log.path}: resuming", file=sys.stderr)
        order = np.random.default_rng(options.seed).permutation(len(clusters))[: options.count]
        with ItemProgress(options.count, done) as progress:
            for index in order[done:].tolist():
                atoms = _hot(clusters[index], index, calculator, isolated, options)
                log.append(atoms)
                progress.advance(f"{atoms.get_chemical_formula()} {atoms.info['temperature']} K")
    return Generated(max(done, options.count), f"frames with forces in {options.out}")


def _clusters(options: HotOptions) -> list[AtomsFrame]:
    """Clusters to start from, as many as frames are wanted or more."""
    frames = read_atoms(
        options.frames,
        problem=lambda atoms: calculator_problem(options.calculator, atoms),
        on_bad=options.on_bad,
        fragments=options.fragments,
    )
    clusters = [frame for frame in frames if isinstance(frame, AtomsFrame)]
    if len(clusters) < options.count:
        raise InputError(f"there are {len(clusters)} clusters to start from: --count can be {len(clusters)} at most")
    return clusters


def _hot(
    start: AtomsFrame, index: int, calculator: Calculator, isolated: Mapping[str, float] | None, options: HotOptions
) -> Atoms:
    """End of a molecular-dynamics run, with random numbers from the seed and the index of the cluster."""
    rng = np.random.default_rng([options.seed, index])
    temperature = rng.uniform(options.min_temperature, options.max_temperature)
    steps = int(rng.integers(options.min_steps, options.max_steps, endpoint=True))
    hot = heated(start.atoms, calculator, rng, temperature=temperature, steps=steps, timestep=options.timestep)
    group = start.atoms.info.get("group", f"{Path(start.file).name}-{start.number}")
    info = {"temperature": round(temperature), "source": "md", "group": group, "minimum": index}
    atoms = Atoms(hot.numbers, (hot.positions - hot.positions.mean(axis=0)).round(4), info=info)
    atoms.calc = calculator
    energy, forces = float(atoms.get_potential_energy()), atoms.get_forces()
    if isolated is not None:
        atoms.info["binding_energy"] = energy - sum(isolated[symbol] for symbol in atoms.get_chemical_symbols())
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
    """Clusters with their seeds in ``info``: ``sblda(n, rng=np.random.default_rng(seed), ...)`` makes each again."""
    for size in sizes:
        for number in range(count):
            own = frame_seed(seed, size, number)
            pos = sblda(size, **lengths, rng=np.random.default_rng(own))
            yield Atoms([element] * size, pos, info={"generator": "sblda", "seed": own, **lengths})


def frame_seed(seed: int, size: int, index: int) -> int:
    """Seed of a cluster; it depends only on the common seed, the size and the index among clusters of that size."""
    return int(np.random.SeedSequence([seed, size, index]).generate_state(1, np.uint64)[0] >> 1)
