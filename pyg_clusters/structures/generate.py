"""Generation of cluster files, and the second-order bond-length-distribution algorithm (S-BLDA)."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
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
from pyg_clusters.frames import AtomsFrame, FrameLog, read_atoms, write_extxyz
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
    named_calculator,
)
from pyg_clusters.structures.quench import heated, isolated_energies, quench
from pyg_clusters.terminal import ItemProgress, count_of, counting

SODIUM = {"mu1": 3.50, "mu2": 3.60}  # default mean bond lengths of sodium in Å


@dataclass
class Generated:
    """Generated clusters in a file."""

    count: int  #: Number of clusters in the file.
    summary: str  #: Type of the clusters, name of the file and remarks.

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
        **{field.name: getattr(options, field.name) for field in fields(QuenchSettings)},
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
        clusters = _clusters(options)
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
    return Generated(max(done, options.count), f"frames with forces in {options.out}")


def _resumed(options: QuenchOptions | HotOptions, job: Mapping[str, object]) -> tuple[FrameLog, int]:
    """Open the log of a resumable job, and return it with the number of frames in it."""
    log = FrameLog(Path(options.out), job, free=("count",), overwrite=options.overwrite)
    if log.frames:
        print(f"{count_of(len(log.frames), 'frame')} in {log.path}: resuming", file=sys.stderr)
    return log, len(log.frames)


def _clusters(options: HotOptions) -> list[AtomsFrame]:
    """Read the clusters to start from; raise an error if there are fewer than requested frames."""
    problem = partial(calculator_problem, options.calculator)
    frames = read_atoms(options.frames, problem=problem, on_bad=options.on_bad, fragments=options.fragments)
    clusters = [frame for frame in frames if isinstance(frame, AtomsFrame)]
    if len(clusters) < options.count:
        raise InputError(f"there are {len(clusters)} clusters to start from: --count can be {len(clusters)} at most")
    return clusters


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


SHORTEST: float = 4.0  # lower bound of the drawn distances, in standard deviations below the mean
PAIRS_AT_ONCE: int = 32  # number of pairs of atoms tried together; it affects only the speed, not the distribution
ANGLES: int = 5  # number of positions around a pair of atoms that are tried before another pair is drawn
PAIRS_BEFORE_RESTART: int = 2048  # number of pairs tried for an atom before the cluster is restarted
MAX_RESTARTS: int = 100  # number of restarts after which an error is raised


def sblda(
    n: int, *, mu1: float = 3.50, mu2: float = 3.60, sigma1: float = 0.1, sigma2: float = 0.1, rng: np.random.Generator
) -> np.ndarray:
    r"""Generate a random cluster by adding atoms at drawn distances from their two nearest neighbours.

    Implements the second-order bond-length-distribution algorithm of Zhai & Alexandrova (J. Chem. Theory Comput. 2016,
    12, 6213). The default parameters are those of Kaneko et al. (J. Mater. Inf. 2023, 3, 8, section "Data set") for
    sodium.

    The papers state only that the distances of a new atom to its nearest and next-nearest neighbours follow
    :math:`N(\mu_1, \sigma_1)` and :math:`N(\mu_2, \sigma_2)`. This implementation interprets them as follows:

    1. The second atom is placed at a distance :math:`l_1 \sim N(\mu_1, \sigma_1)` from the first, in a random
       direction.
    2. For each further atom, two different atoms i and j are drawn, and the distances
       :math:`l_1 \sim N(\mu_1, \sigma_1)` and :math:`l_2 \sim N(\mu_2, \sigma_2)`; :math:`l_2` is redrawn until
       :math:`l_2 \ge l_1`. If the triangle exists, the new atom is placed on the circle at a distance :math:`l_1` from
       i and :math:`l_2` from j, at a random angle.
    3. The position is accepted if its distance to every other atom m is at least a distance
       :math:`l_m \sim N(\mu_1, \sigma_1)` drawn for that atom; i and j are then mostly its nearest and next-nearest
       neighbours. Otherwise up to four other angles are tried, and then another pair.
    4. A cluster that can no longer grow is restarted.

    Distances drawn from :math:`N(\mu_1, \sigma_1)` are clipped at four standard deviations below the mean, so no two
    atoms are closer than :math:`\mu_1 - 4 \sigma_1` (3.1 Å for sodium). Later atoms may come closer than the first two
    neighbours of an atom. The mean distances to the first and second neighbour *in the finished cluster* are therefore
    about 0.04 Å below :math:`\mu_1` and :math:`\mu_2`.

    Args:
        n: Number of atoms.
        mu1: Mean distance of a new atom to its nearest neighbour in Å; must exceed four times ``sigma1``.
        mu2: Mean distance to its next-nearest neighbour in Å; at least ``mu1``.
        sigma1: Standard deviation of the nearest distance in Å.
        sigma2: Standard deviation of the next-nearest distance in Å.
        rng: Random number generator; the same state gives the same cluster.

    Returns:
        Positions ``[n, 3]`` in Å, centred at the origin.

    Raises:
        InputError: If a parameter is out of range, or no cluster of ``n`` atoms is obtained in 100 attempts.

    Example:
        >>> sblda(20, rng=np.random.default_rng(0)).shape
        (20, 3)
    """
    _check(n, mu1, mu2, sigma1, sigma2)
    growth = _Growth(mu1, mu2, sigma1, sigma2, rng)
    for _ in range(MAX_RESTARTS):
        pos = growth.cluster(n)
        if pos is not None:
            return pos - pos.mean(axis=0)
    raise InputError(
        f"no cluster of {n} atoms could be grown with mu1 {mu1}, mu2 {mu2}, sigma1 {sigma1}, sigma2 {sigma2}; "
        "use a mu2 closer to mu1"
    )


class _Growth:
    """Growth of a cluster atom by atom."""

    def __init__(self, mu1: float, mu2: float, sigma1: float, sigma2: float, rng: np.random.Generator):
        self.mu1, self.mu2 = mu1, mu2
        self.sigma1, self.sigma2 = sigma1, sigma2
        self.rng = rng

    def cluster(self, n: int) -> np.ndarray | None:
        """Grow a cluster; return its positions ``[n, 3]``, or ``None`` if an atom cannot be placed."""
        pos = np.zeros((n, 3))
        if n > 1:
            pos[1] = self.nearest(()) * _unit(self.rng.normal(size=3))
        for size in range(2, n):
            place = self.place(pos[:size])
            if place is None:
                return None
            pos[size] = place
        return pos

    def place(self, pos: np.ndarray) -> np.ndarray | None:
        """Return a position for the next atom beside ``pos [num_atoms, 3]``, or ``None`` if none was found."""
        for _ in range(0, PAIRS_BEFORE_RESTART, PAIRS_AT_ONCE):
            i, j, candidates = self.candidates(pos)  # [num_pairs, ANGLES, 3]
            apart = np.sqrt(((candidates[:, :, None] - pos) ** 2).sum(axis=-1))  # [num_pairs, ANGLES, num_atoms]
            pair = np.arange(len(i))
            apart[pair, :, i] = np.inf
            apart[pair, :, j] = np.inf
            free = (apart >= self.nearest(apart.shape)).all(axis=-1)
            if free.any():
                return candidates[np.unravel_index(free.argmax(), free.shape)]  # of the first pair with a free position
        return None

    def candidates(self, pos: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw pairs of atoms, and positions at the drawn distances from both."""
        num_atoms = len(pos)
        i = self.rng.integers(num_atoms, size=PAIRS_AT_ONCE)
        j = (i + self.rng.integers(1, num_atoms, size=PAIRS_AT_ONCE)) % num_atoms
        l1 = self.nearest(PAIRS_AT_ONCE)
        l2 = self.next_nearest(l1)
        axis = pos[j] - pos[i]
        base = np.sqrt((axis**2).sum(axis=1))
        triangle = (l2 >= l1) & (base < l1 + l2) & (l2 < base + l1)
        i, j, l1, l2, base = i[triangle], j[triangle], l1[triangle], l2[triangle], base[triangle]
        axis = axis[triangle] / base[:, None]
        along = (base**2 + l1**2 - l2**2) / (2 * base)
        radius = np.sqrt(np.maximum(l1**2 - along**2, 0))
        direction = self.rng.normal(size=(len(i), ANGLES, 3))
        direction -= (direction * axis[:, None]).sum(axis=-1, keepdims=True) * axis[:, None]
        center = pos[i] + along[:, None] * axis
        return i, j, center[:, None] + radius[:, None, None] * _unit(direction)

    def nearest(self, shape) -> np.ndarray:
        shortest = self.mu1 - SHORTEST * self.sigma1
        return np.maximum(self.rng.normal(self.mu1, self.sigma1, shape), shortest)

    def next_nearest(self, l1: np.ndarray) -> np.ndarray:
        """Draw the second distances, redrawing up to 20 times those below the first."""
        l2 = self.rng.normal(self.mu2, self.sigma2, l1.shape)
        for _ in range(20):
            if not (short := l2 < l1).any():
                break
            l2[short] = self.rng.normal(self.mu2, self.sigma2, int(short.sum()))
        return l2


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.sqrt((vectors**2).sum(axis=-1, keepdims=True))


def _check(n: int, mu1: float, mu2: float, sigma1: float, sigma2: float):
    if n < 1:
        raise InputError(f"a cluster has at least one atom, got n = {n}")
    for name, value in (("mu1", mu1), ("mu2", mu2), ("sigma1", sigma1), ("sigma2", sigma2)):
        if not 0 < value < np.inf:
            raise InputError(f"{name} must be a positive length in Å, got {value}")
    if mu2 < mu1:
        raise InputError(f"mu2 (the mean next-nearest distance) must be at least mu1, got {mu2} and {mu1}")
    if mu1 <= SHORTEST * sigma1:
        raise InputError(f"sigma1 must be less than a quarter of mu1, got {sigma1} and {mu1}")
