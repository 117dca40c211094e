"""Mulliken's gross orbital populations."""

import numpy as np

from pyg_clusters.labels.dft.kohn_sham import ClosedShell

LETTERS = "SPD"
COMPONENTS = ("", "X", "Y", "Z", "XX", "YY", "ZZ", "XY", "XZ", "YZ")
"""Cartesian components in the order of columns."""


def gross_populations(solution: ClosedShell) -> np.ndarray:
    """Electrons of each basis function ``[num_functions]``: the diagonal of density times overlap (Mulliken 1955)."""
    return np.einsum("ij,ji->i", solution.density, solution.mf.get_ovlp())


def population_table(solution: ClosedShell, populations: np.ndarray) -> tuple[list[str], np.ndarray] | None:
    """Populations of a cluster of one element by function, as Gaussian names and orders them.

    A shell of d functions has the number after that of the last s shell: the 19 functions of sodium in 6-31G(d) are
    1S 2S 2PX ... 4PZ 5DXX 5DYY 5DZZ 5DXY 5DXZ 5DYZ.

    Returns:
        Names, and populations ``[num_atoms, len(names)]``; none, if there are several elements, or functions that are
        not cartesian.
    """
    mol = solution.mf.mol
    if len(set(mol.atom_charges())) > 1 or not mol.cart:
        return None
    labels = mol.ao_labels(fmt=False)[: len(populations) // mol.natm]
    num_s = sum(label[2].endswith("s") for label in labels)
    keys = [_key(label[2], label[3], num_s) for label in labels]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    names = [
        f"{number}{LETTERS[letter]}{COMPONENTS[component]}"
        for number, letter, component in map(keys.__getitem__, order)
    ]
    return names, populations.reshape(mol.natm, -1)[:, order]


def mulliken_charges(solution: ClosedShell, populations: np.ndarray) -> np.ndarray:
    """Charge of each atom ``[num_atoms]`` in elementary charges."""
    mol = solution.mf.mol
    electrons = [populations[start:end].sum() for _, _, start, end in mol.aoslice_by_atom()]
    return mol.atom_charges() - np.array(electrons)


def _key(shell: str, component: str, num_s: int) -> tuple[int, int, int]:
    """Number, letter and component of a function, from PySCF's names such as ``3d`` and ``xx``."""
    number, letter = int(shell[:-1]), LETTERS.index(shell[-1].upper())
    return number + (num_s - 2 if letter == 2 else 0), letter, COMPONENTS.index(component.upper())
