"""Moves of a search for minima: a random start, and ways from one minimum towards another."""

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.data import covalent_radii
from ase.md.langevin import Langevin
from scipy.spatial.distance import cdist

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
    """The end of a molecular-dynamics run with a Langevin thermostat.

    Args:
        atoms: A minimum.
        calculator: Energy and forces.
        rng: Source of random numbers.
        temperature: In K. The run begins with twice the kinetic energy of this temperature, half of which becomes
            potential energy.
        steps: Number of steps.
        timestep: In fs.
    """
    hot = Atoms(atoms.numbers, atoms.positions, calculator=calculator)
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
