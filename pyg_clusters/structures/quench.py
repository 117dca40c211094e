"""Search for distinct local minima by basin hopping and molecular dynamics."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.data import atomic_numbers, covalent_radii, ground_state_magnetic_moments
from ase.md.langevin import Langevin
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from pyg_clusters.composition import formula_of
from pyg_clusters.errors import InputError, one_line
from pyg_clusters.options.structures import QuenchSettings
from pyg_clusters.structures.calculators import FAILURES, isolated, lowest_spin
from pyg_clusters.structures.relax_frames import local_minimum
from pyg_clusters.structures.superposition import distances_by_elements

VOLUME = 0.8  # volume per atom of a random start, in units of the cubed bond length; a close-packed crystal has 0.71

APART = 0.72
"""Minimum distance between atoms of a random start, in bond lengths."""

FRICTION = 0.02  # friction of the Langevin thermostat in 1/fs


def bond_length(numbers: np.ndarray) -> float:
    """Estimate the bond length in Å: twice the mean covalent radius (Cordero et al., Dalton Trans. 2008, 2832)."""
    return 2 * float(covalent_radii[numbers].mean())


def random_compact(numbers: np.ndarray, rng: np.random.Generator) -> Atoms:
    """Place atoms at random positions in a sphere, at least :data:`APART` bond lengths apart."""
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
    """Displace every atom randomly within a sphere, whose radius is drawn from 0.25 to 0.55 bond lengths."""
    reach = rng.uniform(0.25, 0.55) * bond_length(atoms.numbers)
    moves = np.stack([_in_ball(reach, rng) for _ in range(len(atoms))])
    return Atoms(atoms.numbers, atoms.positions + moves)


def relocated(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """Move weakly coordinated atoms (one, or up to a tenth of all) to random positions on the surface."""
    bond, pos = bond_length(atoms.numbers), atoms.positions - atoms.positions.mean(axis=0)
    neighbors = (cdist(pos, pos) < 1.3 * bond).sum(axis=1)
    loose = np.argsort(neighbors + rng.uniform(0, 2, len(atoms)))
    for atom in loose[: rng.integers(1, max(2, len(atoms) // 10 + 1))]:
        others = np.delete(pos, atom, axis=0)
        pos[atom] = _touching(others, _unit(rng), bond)
    return Atoms(atoms.numbers, pos)


def swapped(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """Swap the positions of atoms of two elements: one pair, or up to a quarter of the less frequent element."""
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
    """Run molecular dynamics with a Langevin thermostat from a minimum, and return the final structure.

    Charge and spin are read from ``atoms``. The initial kinetic energy is twice that of the temperature (in K), because
    half of it becomes potential energy. The time step is in fs.
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
    """Return the outermost point along a direction from the origin that is one bond length from an atom of ``pos``."""
    along = pos @ direction
    aside = bond**2 - (pos**2).sum(axis=1) + along**2
    near = aside > 0
    if not near.any():
        return direction * bond
    return direction * (along[near] + np.sqrt(aside[near])).max()


SAME_ENERGY, SAME_DISTANCES = 0.005, 0.05
"""Two minima are the same if their energies (eV) and sorted distances (root mean square, Å) differ by less."""

ACCEPTANCE = 2000 * units.kB
"""Thermal energy of the Metropolis rule in eV: a minimum higher by ΔE is accepted with probability
exp(-ΔE / ACCEPTANCE)."""

TRIES_PER_MINIMUM = 3  # maximum number of attempts of a segment, per minimum that it may contain
BARREN = 20  # minimum number of consecutive segments without a new minimum after which the search ends
CLOSEST, BONDED = 0.6, 1.4  # minimum distance between atoms and maximum bond length, in sums of covalent radii


def quench(
    compositions: Sequence[Mapping[str, int]],
    calculator: Calculator,
    count: int,
    *,
    settings: QuenchSettings | None = None,
    known: Iterable[Atoms] = (),
    isolated: Mapping[str, float] | None = None,
) -> Iterator[Atoms]:
    r"""Search for distinct local minima of clusters and alloy clusters.

    The search consists of segments, each for one composition. A segment quenches a random compact structure; each
    further attempt perturbs the current minimum and quenches the result (basin hopping; Wales, Doye, J. Phys. Chem. A
    1997, 101, 5111). The moves are a short molecular-dynamics run at high temperature, a random displacement of all
    atoms, the relocation of a few weakly coordinated surface atoms and, in alloys, swaps of unlike atoms. A new minimum
    becomes the current one by the Metropolis rule at 2,000 K. Segments cycle through the compositions in a shuffled
    order, and a search that is stopped early has sampled all of them evenly.

    Duplicates are discarded: minima of the same composition whose energies agree within 5 meV and whose pair distances,
    sorted within each pair of elements, agree within 0.05 Å (root mean square). Mirror images count as duplicates.
    Fragmented and unconverged clusters are discarded as well.

    Each attempt has its own random numbers, which are derived from the seed and the indices of segment and attempt.
    Minima are rounded to the eight decimals that are written to file. A search can therefore be resumed from its frames
    alone: ``quench(..., known=frames)`` yields the minima that would have followed them.

    Args:
        compositions: Compositions, each as number of atoms by element.
        calculator: Any ASE calculator whose results are reproducible after ``reset()``.
        count: Total number of minima, including the known ones. The search ends earlier after a number of consecutive
            segments without a new minimum: 20, or the number of compositions if that is larger.
        settings: Settings of the search.
        known: Frames of an earlier search with the same arguments (``count`` may differ), in their original order.
        isolated: Energies of the isolated atoms in eV, see :func:`isolated_energies`. If given, ``info`` also contains
            ``binding_energy``.

    Yields:
        Clusters with ``info``: ``energy`` in eV; ``source`` (random, md_quench, basin_hop, relocation or swap);
        ``group``, the name of the segment, such as ``Cu13Au7-4``; the indices ``segment`` and ``attempt``;
        ``accepted``; ``fmax`` in eV/Å. Minima of one segment are related; split the data by group.

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
    """Calculate the energy of an isolated atom of each element in eV.

    Calculators with the parameter ``multiplicity`` use that of the ground state of the atom.

    Raises:
        InputError: If the calculator fails for an atom.
    """
    energies = {}
    for element in elements:
        number = atomic_numbers[element]
        unpaired = round(ground_state_magnetic_moments[number])
        unpaired -= (number - unpaired) % 2  # the orbital moment of Ce and Es is not negligible
        atom = Atoms(element, info={"multiplicity": 1 + unpaired})
        try:
            energies[element] = float(isolated(atom, calculator).get_potential_energy())
        except FAILURES as error:
            reason = one_line(error)
            raise InputError(f"the calculator has no energy of an isolated atom of {element}: {reason}") from error
    return energies


class _Search:
    """State of a search: the minima found so far, by composition, and the current segment."""

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
        """Add the next minimum of the search and update the state."""
        info = atoms.info
        energy = info["energy"] if "energy" in info else atoms.get_potential_energy()  # ASE moves it on reading
        if info["segment"] != self.segment:
            self.begin(info["segment"])
        self.found[np.sort(atoms.numbers).tobytes()].append((energy, distances_by_elements(atoms)))
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
        """Run the next attempt, and return its minimum if it is new."""
        settings = self.settings
        rng = np.random.default_rng([settings.seed, self.segment, self.attempt])
        composition = self.compositions[self.order[self.segment % len(self.compositions)]]
        try:
            source, moved = self.moved(composition, rng)
            spin = lowest_spin(moved.numbers, self.calculator)
            moved.info = dict(spin)
            if not np.isfinite(moved.positions).all():
                return None
            found = local_minimum(moved, self.calculator, fmax=settings.fmax, max_steps=settings.steps)
            if not found.converged or not _is_sound(found.atoms):
                return None
            written = _as_written(found.atoms)
            written.info = dict(spin)
            label = local_minimum(written, self.calculator, fmax=np.inf)
        except FAILURES:
            return None
        if self.is_known(written, label.energy):
            return None
        rise = 0.0 if self.current is None else label.energy - self.current.info["energy"]
        energies = {"energy": label.energy}
        if self.isolated is not None:
            of_atoms = sum(n * self.isolated[symbol] for symbol, n in composition.items())
            energies["binding_energy"] = label.energy - of_atoms
        written.info = {
            **spin,
            **energies,
            "source": source,
            "group": f"{formula_of(composition)}-{self.segment}",
            "segment": self.segment,
            "attempt": self.attempt,
            "accepted": bool(rng.uniform() < np.exp(-max(rise, 0.0) / ACCEPTANCE)),
            "fmax": round(label.fmax, 6),
        }
        return written

    def moved(self, composition: Mapping[str, int], rng: np.random.Generator) -> tuple[str, Atoms]:
        """Return the source and the structure from which an attempt starts."""
        if self.current is None:
            symbols = [symbol for symbol, n in composition.items() for _ in range(n)]
            return "random", random_compact(Atoms(symbols).numbers, rng)
        move = str(rng.choice(["md_quench", "basin_hop", "relocation"] + ["swap"] * (len(composition) > 1)))
        if move == "md_quench":
            temperature = self.settings.temperature * rng.uniform(0.7, 1.5)
            steps, timestep = self.settings.md_steps, self.settings.timestep
            return move, heated(
                self.current, self.calculator, rng, temperature=temperature, steps=steps, timestep=timestep
            )
        return move, {"basin_hop": displaced, "relocation": relocated, "swap": swapped}[move](self.current, rng)

    def is_known(self, atoms: Atoms, energy: float) -> bool:
        near = [d for e, d in self.found[np.sort(atoms.numbers).tobytes()] if abs(e - energy) < SAME_ENERGY]
        if not near:
            return False
        distances = distances_by_elements(atoms)
        return any(np.sqrt(np.mean((distances - other) ** 2)) < SAME_DISTANCES for other in near)


def _is_sound(atoms: Atoms) -> bool:
    """Whether a cluster is connected and no two atoms overlap."""
    radii = covalent_radii[atoms.numbers]
    relative = cdist(atoms.positions, atoms.positions) / (radii[:, None] + radii)
    pieces, _ = connected_components(relative < BONDED, directed=False)
    np.fill_diagonal(relative, np.inf)
    return pieces == 1 and bool(relative.min() > CLOSEST)


def _as_written(atoms: Atoms) -> Atoms:
    """Centre a cluster at the origin and round its coordinates to the eight decimals that are written to file."""
    centred = atoms.positions - atoms.positions.mean(axis=0)
    return Atoms(atoms.numbers, [[float(f"{value:.8f}") for value in row] for row in centred])
