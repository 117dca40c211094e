"""Cost and error of def2-SVP in `--calculator pyscf`, compared with def2-TZVP.

    OMP_NUM_THREADS=1 python tests/benchmarks/dft_levels.py Na Al Cu Ga Ag Au

Of each element, for clusters of four atoms (a rhombus with the bond length of the better basis in the dimer, perturbed
by 0.1 Å): atomisation energy, energies relative to each other, forces, and processor time of energy and forces.
"""

import argparse
import time

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii

from pyg_clusters.structures import PySCFCalculator

BASES = ("def2-svp", "def2-tzvp")
PERTURBATION = 0.1


def rhombi(element: str, count: int) -> list[Atoms]:
    """Perturbed planar rhombi with sides of two covalent radii."""
    side = 2 * covalent_radii[atomic_numbers[element]]
    corners = side * np.array([[0, 0.5, 0], [0, -0.5, 0], [0.866, 0, 0], [-0.866, 0, 0]])
    generator = np.random.default_rng(0)
    return [Atoms(4 * [element], corners + PERTURBATION * generator.normal(size=(4, 3))) for _ in range(count)]


def results(element: str, basis: str, count: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Binding energies in eV, forces in eV/Å, and processor seconds for a cluster."""
    atom = Atoms(element)
    multiplicity = 2 if atom.numbers[0] % 2 else None
    single = PySCFCalculator(multiplicity=multiplicity, basis=basis).get_potential_energy(atom)
    energies, forces = [], []
    start = time.process_time()
    for cluster in rhombi(element, count):
        cluster.calc = PySCFCalculator(basis=basis)
        energies.append(cluster.get_potential_energy() - 4 * single)
        forces.append(cluster.get_forces())
    return np.array(energies), np.array(forces), (time.process_time() - start) / count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("elements", nargs="+")
    parser.add_argument("--count", type=int, default=3)
    args = parser.parse_args()
    for element in args.elements:
        (energy, forces, seconds), (better, true_forces, longer) = (
            results(element, basis, args.count) for basis in BASES
        )
        relative = (energy - energy.mean()) - (better - better.mean())
        print(
            f"{element}4: binding {energy.mean() / 4:.3f} eV per atom, {BASES[1]} {better.mean() / 4:.3f}; relative "
            f"energies off by {1000 * np.abs(relative).mean() / 4:.1f} meV per atom, forces by "
            f"{1000 * np.abs(forces - true_forces).mean():.0f} of {1000 * np.abs(true_forces).mean():.0f} meV/Å; "
            f"{seconds:.1f} and {longer:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
