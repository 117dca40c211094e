"""Cheap selection of the clusters that are worth a shielding calculation."""

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from scipy.spatial.distance import cdist

from pyg_clusters.errors import InputError
from pyg_clusters.frames.electronic_state import electronic_state
from pyg_clusters.labels.dft.kohn_sham import solve_closed_shell
from pyg_clusters.labels.dft.level import ShieldingLevel, free_memory, needed_memory, problem_of, spare_memory
from pyg_clusters.labels.dft.pyscf_import import HARTREE, need_pyscf
from pyg_clusters.labels.dft.stability import triplet_stability
from pyg_clusters.labels.labelling import LabellingError, LabelResult, unlabelled

VALENCE_LEVEL = ShieldingLevel(
    basis="lanl2dz",
    core_potential="lanl2dz",
    cartesian=False,
    fitting="def2-universal-jfit",
    grid=0,
    scf_tolerance=1e-6,
)
"""B3LYP with one electron of each sodium atom: 3 s for Na14, against 40 s with all electrons."""

LEAST_EIGENVALUE: float = -0.04
"""Threshold in eV: with all electrons the closed shell is a little more stable, so slightly negative values pass."""

DECAY: float = 0.15
"""Decay of the hopping with the distance, per Å."""

UNIT_DISTANCE: float = 3.6
"""Distance in Å at which the hopping is one: that of next-nearest neighbours in generated sodium clusters."""

WRITTEN: tuple[str, ...] = ("tight_binding_gap", "valence_lambda_triplet")


def tight_binding_gap(pos: np.ndarray) -> float:
    r"""Gap between the frontier orbitals of one s orbital and one electron per atom.

    The Hamiltonian is :math:`H_{ij} = -\exp(-0.15\,\text{Å}^{-1} (d_{ij} - 3.6\,\text{Å}))` between all atoms, zero on
    the diagonal: the crudest picture of a sodium cluster, in a fraction of a millisecond. Closed shells are rarely
    stable where this gap is small.

    Args:
        pos: Positions ``[num_atoms, 3]`` in Å, of an even number of atoms.

    Returns:
        The gap in units of the hopping at 3.6 Å.

    Example:
        >>> square = np.array([[0, 0, 0], [3.6, 0, 0], [3.6, 3.6, 0], [0, 3.6, 0]])
        >>> round(tight_binding_gap(square), 12)  # two degenerate orbitals, with one pair of electrons
        0.0
    """
    hopping = -np.exp(-DECAY * (cdist(pos, pos) - UNIT_DISTANCE))
    np.fill_diagonal(hopping, 0.0)
    energies = np.linalg.eigvalsh(hopping)
    half = len(pos) // 2
    return float(energies[half] - energies[half - 1])


@dataclass(frozen=True)
class StabilityLabeller:
    r"""Test for a stable closed shell of sodium clusters, before a calculation with all electrons.

    Called with a cluster it returns a copy with ``tight_binding_gap`` (see :func:`tight_binding_gap`) and
    ``valence_lambda_triplet`` (eV, lowest eigenvalue of the triplet stability matrix of B3LYP/LANL2DZ, where one
    electron of each atom is treated) in ``info``. Clusters with a small gap are rejected without the calculation,
    those with a low eigenvalue after it.

    The paper's filter on :math:`\langle S^2 \rangle` (Kaneko et al. 2023, section "Data set") rejects nearly all random
    clusters; this test avoids the calculation with all electrons for most of them. Clusters that pass are not a random
    sample any more: mention it where they are used.

    Args:
        min_gap: Clusters with a smaller tight-binding gap are rejected.
        least: Clusters with a lower eigenvalue in eV are rejected.
        charge: Total charge of clusters whose frame states none. The gap is that of the neutral cluster.
        memory: Memory of a calculation in bytes; by default most of the free memory.

    Raises:
        MissingExtra: If PySCF is not installed.
        InputError: If the gap is negative.

    Example:
        >>> dimer = Atoms("Na2", [[0, 0, 0], [0, 0, 3.08]])
        >>> tested = StabilityLabeller()(dimer)                                  # doctest: +SKIP
        >>> round(tested.atoms.info["valence_lambda_triplet"], 1), tested.reason  # doctest: +SKIP
        (0.4, None)
    """

    min_gap: float = 0.0
    least: float = LEAST_EIGENVALUE
    charge: int = 0
    memory: float | None = None

    def __post_init__(self):
        need_pyscf("label prescreen")
        if self.min_gap < 0:
            raise InputError(f"the least tight-binding gap must not be negative, got {self.min_gap}")

    def problem(self, atoms: Atoms) -> str | None:
        """Reason why a cluster cannot be tested, if any: another element than sodium, odd electrons."""
        others = sorted(set(atoms.get_chemical_symbols()) - {"Na"})
        if others:
            return f"the test is for Na alone, not for {', '.join(others)}; label shielding tests any cluster"
        return problem_of(atoms, self.charge, VALENCE_LEVEL)

    def needed_memory(self, atoms: Atoms) -> float:
        """Number of bytes without which a cluster cannot be tested."""
        return needed_memory(atoms, VALENCE_LEVEL)

    def __call__(self, atoms: Atoms) -> LabelResult:
        result = unlabelled(atoms, WRITTEN)
        gap = result.info["tight_binding_gap"] = tight_binding_gap(result.positions)
        note = f"tight-binding gap {gap:.3f}"
        if gap < self.min_gap:
            return LabelResult(result, f"the tight-binding gap is {gap:.3f}, below {self.min_gap:g}", note)
        limit = free_memory() if self.memory is None else self.memory
        mol = VALENCE_LEVEL.molecule(result, electronic_state(result, self.charge).charge)
        try:
            solution = solve_closed_shell(mol, VALENCE_LEVEL, spare_memory(limit, result, VALENCE_LEVEL))
            value = HARTREE * triplet_stability(solution)[0]
        except LabellingError as error:
            return LabelResult(result, str(error), note)
        result.info["valence_lambda_triplet"] = value
        note = f"{note}, lambda_triplet {value:.3f} eV"
        if value < self.least:
            reason = f"the closed shell of the valence electrons is triplet-unstable: lowest eigenvalue {value:.3f} eV"
            return LabelResult(result, reason, note)
        return LabelResult(result, None, note)
