"""Files of generated clusters."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from pyg_clusters.errors import InputError
from pyg_clusters.frames import FrameLog, write_extxyz
from pyg_clusters.frames.outputs import open_output
from pyg_clusters.options.generate import QuenchOptions, SbldaOptions
from pyg_clusters.options.parsing import command_words, parse_sizes
from pyg_clusters.progress import ItemProgress, counting
from pyg_clusters.structures.calculators import calculator_identity, named_calculator
from pyg_clusters.structures.compositions import all_compositions, formula_of, parse_formula
from pyg_clusters.structures.quench import QuenchSettings, isolated_energies, quench
from pyg_clusters.structures.sblda import sblda

SODIUM = {"mu1": 3.50, "mu2": 3.60}
"""Default bond lengths of sodium in Å."""


@dataclass
class Minima:
    """Result of :func:`generate_quench`.

    Attributes:
        count: Number of minima in the file.
        compositions: Number of compositions searched.
    """

    count: int
    compositions: int


def generate_sblda(options: SbldaOptions) -> int:
    """Write random clusters; see :func:`~pyg_clusters.structures.sblda`.

    Returns:
        Number of clusters.

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
    with open_output(out, command_words("generate sblda", options), overwrite=options.overwrite):
        write_extxyz(out, counting(clusters, lambda _: 1, total))
    return total


def generate_quench(options: QuenchOptions) -> Minima:
    """Search distinct local minima and append each to a file; see :func:`~pyg_clusters.structures.quench`.

    Raises:
        InputError: If a composition or the calculator is not possible, or the file belongs to another search.
    """
    names = ("seed", "per_segment", "fmax", "temperature", "md_steps", "timestep")
    settings = QuenchSettings(max_steps=options.steps, **{name: getattr(options, name) for name in names})
    compositions = _compositions(options)
    elements = list(dict.fromkeys(symbol for composition in compositions for symbol in composition))
    calculator = named_calculator(options.calculator, elements)
    isolated = None if options.no_binding else isolated_energies(calculator, elements)
    job: dict[str, object] = {
        **asdict(settings),
        "calculator": calculator_identity(options.calculator),
        "isolated": isolated,
        "compositions": [*(options.formula or (options.elements, options.sizes, options.compositions))],
        "count": options.count,
    }
    with open_output(Path(options.out), command_words("generate quench", options), overwrite=True):
        log = FrameLog(Path(options.out), job, free=("count",), overwrite=options.overwrite)
        count = len(log.frames)
        if count:
            print(f"{count} minima are in {log.path}: resuming", file=sys.stderr)
        minima = quench(compositions, calculator, options.count, settings=settings, known=log.frames, isolated=isolated)
        with ItemProgress(options.count, count) as progress:
            for atoms in minima:
                log.append(atoms)
                count += 1
                info = atoms.info
                progress.advance(f"{info['group']} {info['source']} {info['energy']:.4f} eV")
    return Minima(count, len(compositions))


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
