"""A sampler of local minima, and the moves of its search."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, CalculatorError
from ase.data import atomic_numbers, covalent_radii, ground_state_magnetic_moments
from ase.md.langevin import Langevin
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from pyg_clusters.composition import formula_of
from pyg_clusters.errors import InputError
from pyg_clusters.options.structures import QuenchSettings
from pyg_clusters.structures.calculators import isolated, lowest_spin
from pyg_clusters.structures.relax_frames import local_minimum
from pyg_clusters.structures.superposition import distances_by_elements

VOLUME = 0.8
"""Volume of an atom in a random start, in cubes of the bond length; 0.71 in a close-packed crystal."""

APART = 0.72
"""Least distance in a random start, in bond lengths."""

FRICTION = 0.02
"""Of the Langevin thermostat, in 1/fs."""


def bond_length(numbers: np.ndarray) -> float:
    """Twice the mean covalent radius in Å (Cordero et al., Dalton Trans. 2008, 2832) of atoms ``[num_atoms]``."""
    return 2 * float(covalent_radii[numbers].mean())


def random_compact(numbers: np.ndarray, rng: np.random.Generator) -> Atoms:
    """Atoms at random in a sphere, none close to another."""
    bond = bond_length(numbers)
    radius = bond * (3 * VOLUME * len(numbers) / (4 * np.pi)) ** (1 / 3)
    pos = np.empty((0, 3))
    jammed = 200 * len(numbers)
    failed = 0
    while len(pos) < len(numbers):
        place = _in_ball(radius, rng)
        if np.linalg.norm(pos - place, axis=1).min(initial=np.inf) > APART * bond:
            pos = np.vstack([pos, place])
        else:
            failed += 1
        if failed > jammed:
            pos, failed = pos[:0], 0
    return Atoms(numbers, pos)


def displaced(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """Every atom moved by up to 0.25 to 0.55 bond lengths."""
    reach = rng.uniform(0.25, 0.55) * bond_length(atoms.numbers)
    moves = np.stack([_in_ball(reach, rng) for _ in range(len(atoms))])
    return Atoms(atoms.numbers, atoms.positions + moves)


def relocated(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """One to a tenth of the atoms, of those with the fewest neighbours, moved to random places on the surface."""
    bond, pos = bond_length(atoms.numbers), atoms.positions - atoms.positions.mean(axis=0)
    neighbors = (cdist(pos, pos) < 1.3 * bond).sum(axis=1)
    loose = np.argsort(neighbors + rng.uniform(0, 2, len(atoms)))
    for atom in loose[: rng.integers(1, max(2, len(atoms) // 10 + 1))]:
        others = np.delete(pos, atom, axis=0)
        pos[atom] = _touching(others, _unit(rng), bond)
    return Atoms(atoms.numbers, pos)


def swapped(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """Atoms of two elements that changed places, one to a quarter of the less frequent of the two."""
    one, other = rng.choice(np.unique(atoms.numbers), 2, replace=False)
    ones, others = np.flatnonzero(atoms.numbers == one), np.flatnonzero(atoms.numbers == other)
    most = min(len(ones), len(others))
    pairs = int(rng.integers(1, max(2, most // 4 + 1)))
    a, b = rng.choice(ones, pairs, replace=False), rng.choice(others, pairs, replace=False)
    pos = atoms.positions.copy()
    pos[a], pos[b] = atoms.positions[b], atoms.positions[a]
    return Atoms(atoms.numbers, pos)


def heated(
    atoms: Atoms, calculator: Calculator, rng: np.random.Generator, *, temperature: float, steps: int, timestep: float
) -> Atoms:
    """The end of a molecular-dynamics run from a minimum with a Langevin thermostat, with a time step in fs.

    Charge and spin are those that the minimum states.

    The run begins with twice the kinetic energy of the temperature (in K), half of which becomes potential energy.
    """
    hot = isolated(atoms, calculator)
    spread = np.sqrt(hot.get_masses() * (units.kB * (2 * temperature)))
    hot.set_momenta(spread[:, None] * rng.standard_normal((len(hot), 3)))
    dynamics = Langevin(
        hot, timestep * units.fs, temperature_K=temperature, friction=FRICTION / units.fs, fixcm=False, rng=rng
    )
    dynamics.run(steps)
    return Atoms(hot.numbers, hot.positions)


def _unit(rng: np.random.Generator) -> np.ndarray:
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector)


def _in_ball(radius: float, rng: np.random.Generator) -> np.ndarray:
    return radius * rng.uniform() ** (1 / 3) * _unit(rng)


def _touching(pos: np.ndarray, direction: np.ndarray, bond: float) -> np.ndarray:
    """The outermost point in a direction from the origin at one bond length from an atom ``pos [num_atoms, 3]``."""
    along = pos @ direction
    aside = bond**2 - (pos**2).sum(axis=1) + along**2
    near = aside > 0
    if not near.any():
        return direction * bond
    return direction * (along[near] + np.sqrt(aside[near])).max()


SAME_ENERGY, SAME_DISTANCES = 0.005, 0.05
"""Two minima are one if their energies (eV) and their sorted distances (root mean square, Å) differ by less."""

ACCEPTANCE = 2000 * units.kB
"""A segment continues from a minimum that is higher by ΔE with the probability exp(-ΔE / ACCEPTANCE), in eV."""

TRIES_PER_MINIMUM = 3
"""Tries of a segment for each minimum that it may find."""

BARREN = 20
"""Segments in a row, at least, that find nothing new before the search is taken for exhausted."""

CLOSEST, BONDED = 0.6, 1.4
"""Distances in sums of covalent radii: none is shorter in a sound cluster, and bonds up to the second connect it."""


def quench(
    compositions: Sequence[Mapping[str, int]],
    calculator: Calculator,
    count: int,
    *,
    settings: QuenchSettings | None = None,
    known: Iterable[Atoms] = (),
    isolated: Mapping[str, float] | None = None,
) -> Iterator[Atoms]:
    r"""Distinct local minima of clusters and alloy clusters.

    The search is made of segments, each of one composition: a random compact start is quenched, and from then on each
    try moves the minimum at hand and quenches it again. The moves are a hot molecular-dynamics run, a random
    displacement of all atoms, a few loosely bound atoms put elsewhere on the surface (basin hopping; Wales, Doye,
    J. Phys. Chem. A 1997, 101, 5111), and in alloys exchanged places of unlike atoms. A new minimum is accepted as the
    next to go on from by the Metropolis rule at 2,000 K. Segments take the compositions in a shuffled order, over and
    over, so that a search that is stopped early has covered all of them evenly.

    A minimum is left out if it is one that was found before: same composition, energy within 5 meV, and sorted
    distances, taken apart by pair of elements, within 0.05 Å (root mean square); so are mirror images. Fragmented
    clusters and those that do not converge are left out.

    Every try has random numbers of its own, from the seed, the number of the segment and that of the try, and starts
    from positions with eight decimals, as they are written. The frames found so far are therefore all that is needed to
    go on: ``quench(..., known=frames)`` yields what would have followed them.

    Args:
        compositions: Number of atoms by element, of each composition.
        calculator: Any ASE calculator that gives the same numbers again after ``reset()``.
        count: Number of minima to reach, those known included. The search ends earlier if it finds nothing new in
            twenty segments in a row, or as many as there are compositions.
        settings: The other settings.
        known: The frames of an earlier search with the same arguments (``count`` may differ), in their order.
        isolated: Energies of isolated atoms in eV, see :func:`isolated_energies`; with them ``info`` has
            ``binding_energy``, too.

    Yields:
        Clusters with ``info``: ``energy`` in eV; ``source`` (random, md_quench, basin_hop, relocation or swap);
        ``group``, the segment, such as ``Cu13Au7-4``; ``segment`` and ``attempt``, numbers; ``accepted``; ``fmax`` in
        eV/Å. Minima of a segment are related: split by group.

    Example:
        >>> from pyg_clusters.structures import ClusterEMT
        >>> found = list(quench([{"Cu": 4, "Au": 3}], ClusterEMT(), 3))
        >>> len(found), min(round(atoms.info["energy"], 2) for atoms in found) > 0
        (3, True)
    """
    if not compositions or min(sum(composition.values()) for composition in compositions) < 2:
        raise InputError("a search for minima needs compositions, of two atoms or more each")
    search = _Search(compositions, calculator, settings or QuenchSettings(), isolated)
    for atoms in known:
        search.remember(atoms)
    yield from search.minima(count)


def isolated_energies(calculator: Calculator, elements: Iterable[str]) -> dict[str, float]:
    """Energies of isolated atoms in eV as a calculator gives them, by element.

    Calculators that take a multiplicity calculate the ground state of the atom.

    Raises:
        InputError: If it does not give one.
    """
    energies = {}
    for element in elements:
        unpaired = round(ground_state_magnetic_moments[atomic_numbers[element]])
        atom = Atoms(element, info={"multiplicity": 1 + unpaired})
        try:
            energies[element] = float(isolated(atom, calculator).get_potential_energy())
        except CalculatorError as error:
            raise InputError(f"the calculator has no energy of an isolated atom of {element}: {error}") from error
    return energies


class _Search:
    """Where a search is: the minima found, by composition, and the segment at hand."""

    def __init__(
        self,
        compositions: Sequence[Mapping[str, int]],
        calculator: Calculator,
        settings: QuenchSettings,
        isolated: Mapping[str, float] | None,
    ):
        self.compositions, self.calculator, self.settings = compositions, calculator, settings
        self.isolated = isolated
        self.order = np.random.default_rng(settings.seed).permutation(len(compositions))
        self.found: dict[bytes, list[tuple[float, np.ndarray]]] = defaultdict(list)
        self.total = 0
        self.segment, self.attempt, self.of_segment = 0, 0, 0
        self.productive = -1
        self.current: Atoms | None = None

    def remember(self, atoms: Atoms):
        """Takes note of a minimum, the next in the order of the search."""
        info = atoms.info
        energy = info["energy"] if "energy" in info else atoms.get_potential_energy()  # ASE moves it on reading
        if info["segment"] != self.segment:
            self.begin(info["segment"])
        self.found[atoms.numbers.tobytes()].append((energy, distances_by_elements(atoms)))
        self.total += 1
        self.of_segment += 1
        self.attempt, self.productive = info["attempt"] + 1, self.segment
        if info["accepted"]:
            state = lowest_spin(atoms.numbers, self.calculator)
            self.current = Atoms(atoms.numbers, atoms.positions, info={"energy": energy, **state})

    def begin(self, segment: int):
        self.segment, self.attempt, self.of_segment, self.current = segment, 0, 0, None

    def minima(self, count: int) -> Iterator[Atoms]:
        barren = max(BARREN, len(self.compositions))
        per_segment = self.settings.per_segment
        while self.total < count and self.segment - self.productive <= barren:
            if self.of_segment == per_segment or self.attempt >= TRIES_PER_MINIMUM * per_segment:
                self.begin(self.segment + 1)
                continue
            atoms = self.attempted()
            if atoms is None:
                self.attempt += 1
            else:
                self.remember(atoms)
                yield atoms

    def attempted(self) -> Atoms | None:
        """The minimum that the next try leads to, if it is a new one."""
        settings = self.settings
        rng = np.random.default_rng([settings.seed, self.segment, self.attempt])
        composition = self.compositions[self.order[self.segment % len(self.compositions)]]
        try:
            source, moved = self.moved(composition, rng)
            moved.info = lowest_spin(moved.numbers, self.calculator)
            if not np.isfinite(moved.positions).all():
                return None
            found = local_minimum(moved, self.calculator, fmax=settings.fmax, max_steps=settings.steps)
            if not found.converged or not _is_sound(found.atoms):
                return None
            written = _as_written(found.atoms)
            written.info = lowest_spin(written.numbers, self.calculator)
            label = local_minimum(written, self.calculator, fmax=np.inf)
        except CalculatorError:
            return None
        if self.is_known(written, label.energy):
            return None
        rise = 0.0 if self.current is None else label.energy - self.current.info["energy"]
        written.info = {
            **written.info,
            "energy": label.energy,
            **self.binding(composition, label.energy),
            "source": source,
            "group": f"{formula_of(composition)}-{self.segment}",
            "segment": self.segment,
            "attempt": self.attempt,
            "accepted": bool(rng.uniform() < np.exp(-max(rise, 0.0) / ACCEPTANCE)),
            "fmax": round(label.fmax, 6),
        }
        return written

    def moved(self, composition: Mapping[str, int], rng: np.random.Generator) -> tuple[str, Atoms]:
        """Where a try starts, and how it came there."""
        if self.current is None:
            symbols = [symbol for symbol, n in composition.items() for _ in range(n)]
            return "random", random_compact(Atoms(symbols).numbers, rng)
        settings = self.settings
        moves = ["md_quench", "basin_hop", "relocation"] + ["swap"] * (len(composition) > 1)
        move = str(rng.choice(moves))
        if move == "md_quench":
            temperature = settings.temperature * rng.uniform(0.7, 1.5)
            return move, heated(
                self.current,
                self.calculator,
                rng,
                temperature=temperature,
                steps=settings.md_steps,
                timestep=settings.timestep,
            )
        return move, {"basin_hop": displaced, "relocation": relocated, "swap": swapped}[move](self.current, rng)

    def binding(self, composition: Mapping[str, int], energy: float) -> dict[str, float]:
        if self.isolated is None:
            return {}
        return {"binding_energy": energy - sum(n * self.isolated[symbol] for symbol, n in composition.items())}

    def is_known(self, atoms: Atoms, energy: float) -> bool:
        near = [d for e, d in self.found[atoms.numbers.tobytes()] if abs(e - energy) < SAME_ENERGY]
        if not near:
            return False
        distances = distances_by_elements(atoms)
        return any(np.sqrt(np.mean((distances - other) ** 2)) < SAME_DISTANCES for other in near)


def _is_sound(atoms: Atoms) -> bool:
    """Whether a cluster is in one piece, and no two atoms are on top of each other."""
    radii = covalent_radii[atoms.numbers]
    relative = cdist(atoms.positions, atoms.positions) / (radii[:, None] + radii)
    pieces, _ = connected_components(relative < BONDED, directed=False)
    np.fill_diagonal(relative, np.inf)
    return pieces == 1 and bool(relative.min() > CLOSEST)


def _as_written(atoms: Atoms) -> Atoms:
    """A cluster with its mean position at the origin and coordinates that a file of eight decimals keeps exactly."""
    centred = atoms.positions - atoms.positions.mean(axis=0)
    return Atoms(atoms.numbers, [[float(f"{value:.8f}") for value in row] for row in centred])
