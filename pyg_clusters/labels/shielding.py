"""Labels of NMR shieldings, and a cheap stability test to select clusters."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from ase import Atoms
from ase.units import Hartree
from scipy.spatial.distance import cdist

from pyg_clusters.errors import InputError
from pyg_clusters.frames.electronic_state import electronic_state
from pyg_clusters.labels.dft import need_pyscf
from pyg_clusters.labels.dft.kohn_sham import (
    ClosedShell,
    gross_populations,
    mulliken_charges,
    population_table,
    solve_closed_shell,
    with_orbitals,
)
from pyg_clusters.labels.dft.level import GB, ShieldingLevel, free_memory, needed_memory, problem_of, spare_memory
from pyg_clusters.labels.dft.shielding_tensor import check_gpu, exact_shielding, shielding_on_gpu, shielding_tensors
from pyg_clusters.labels.dft.stability import broken_symmetry, triplet_stability
from pyg_clusters.labels.labellers import LabellingError, LabelResult, unlabelled

WRITTEN: tuple[str, ...] = (
    *("nmr_shielding", "nmr_tensor", "gop", "gop_columns", "mulliken_charge", "method", "homo_lumo_gap"),
    *("lambda_triplet", "rks_stable", "s2", "broken_symmetry_lowering"),
)
"""Keys written for a cluster in addition to its energy; values of earlier labels are removed."""


@dataclass(frozen=True)
class ShieldingLabeller:
    r"""Labels of the NMR shielding of every atom by density functional theory (Kaneko et al. 2023).

    Called with a cluster, it returns a labelled copy.

    Arrays (per atom):

    - ``nmr_shielding``: isotropic shielding in ppm,
    - ``nmr_tensor``: shielding tensor in ppm, row by row, ``[num_atoms, 9]``,
    - ``gop``: gross orbital populations in electrons, named in ``info["gop_columns"]``, or ``mulliken_charge`` in e
      for clusters of several elements or spherical basis functions.

    Values in ``info``:

    - ``energy`` and ``homo_lumo_gap`` in eV,
    - ``lambda_triplet``: lowest eigenvalue of the triplet stability matrix in eV,
    - ``rks_stable``: whether this eigenvalue is positive,
    - ``s2``: :math:`\langle S^2 \rangle` of the broken-symmetry singlet, 0 for a stable closed shell,
    - ``broken_symmetry_lowering``: energy of the broken-symmetry singlet below the closed shell in eV,
    - ``method``: level of theory,
    - ``charge``: the argument, if it is not zero and the frame states none.

    The shieldings are those of the closed-shell solution. As in the paper, clusters with a large
    :math:`\langle S^2 \rangle` are rejected, as well as clusters whose calculation does not converge.

    Args:
        level: Functional, basis set and numerical settings.
        charge: Total charge in e of clusters whose frame does not state a charge.
        max_s2: Clusters with this :math:`\langle S^2 \rangle` or more are rejected.
        spin_test: ``"s2"`` follows an instability to the broken-symmetry singlet. ``"stability"`` is cheaper and
            rejects all clusters whose closed shell is triplet-unstable.
        label_unstable: Also compute the shieldings of clusters that are rejected for their spin.
        memory: Memory limit of a calculation in bytes; by default the free memory.
        device: ``"cpu"``, or ``"cuda"`` to use gpu4pyscf.

    Raises:
        MissingExtra: If PySCF is not installed, or gpu4pyscf for ``"cuda"``.
        InputError: If an argument is out of range, or there is no GPU.

    Example:
        >>> dimer = Atoms("Na2", [[0, 0, 0], [0, 0, 3.08]])
        >>> labelled = ShieldingLabeller()(dimer)                                # doctest: +SKIP
        >>> labelled.atoms.arrays["nmr_shielding"].round(1), labelled.reason    # doctest: +SKIP
        (array([611.3, 611.3]), None)
    """

    level: ShieldingLevel = field(default_factory=ShieldingLevel)
    charge: int = 0
    max_s2: float = 0.05
    spin_test: Literal["s2", "stability"] = "s2"
    label_unstable: bool = False
    memory: float | None = None
    device: str = "cpu"

    def __post_init__(self):
        need_pyscf("label shielding")
        if self.level.core_potential:
            raise InputError("shieldings require all core electrons: use a level without core_potential")
        if not self.max_s2 > 0:
            raise InputError(f"the limit of <S^2> must be positive, got {self.max_s2}")
        if self.device not in ("cpu", "cuda"):
            raise InputError(f"the device is cpu or cuda, got {self.device!r}")
        if self.device == "cuda":
            check_gpu()

    def problem(self, atoms: Atoms) -> str | None:
        """Reason why a cluster cannot be labelled, if any: odd number of electrons, no basis set, too little memory."""
        problem = problem_of(atoms, self.charge, self.level)
        if problem is None and self.needed_memory(atoms) > self.limit:
            needed, given = self.needed_memory(atoms) / GB, self.limit / GB
            return (
                f"{len(atoms)} atoms need {needed:.1f} GB of memory, the limit is {given:.1f}; "
                "see --memory and --workers"
            )
        return problem

    def needed_memory(self, atoms: Atoms) -> float:
        """Minimum memory in bytes to label a cluster."""
        return needed_memory(atoms, self.level)

    @property
    def limit(self) -> float:
        """Memory limit of a calculation in bytes."""
        return free_memory() if self.memory is None else self.memory

    def __call__(self, atoms: Atoms) -> LabelResult:
        result = unlabelled(atoms, WRITTEN)
        try:
            reason = self._label(result)
        except LabellingError as error:
            return LabelResult(unlabelled(atoms, WRITTEN), str(error), "not labelled")
        info = result.info
        note = f"lambda_triplet {info['lambda_triplet']:.3f} eV"
        if "s2" in info:
            note += f", <S^2> {info['s2']:.3f}"
        if "nmr_shielding" in result.arrays:
            shieldings = result.arrays["nmr_shielding"]
            note = f"{shieldings.mean():.1f} ± {shieldings.std():.1f} ppm, {note}"
        return LabelResult(result, reason, note)

    def _label(self, atoms: Atoms) -> str | None:
        """Label a cluster in place, and return the reason for its rejection, if any."""
        mol = self.level.molecule(atoms, _state_charge(atoms, self.charge))
        spare = spare_memory(self.limit, atoms, self.level)
        tensors = None
        if self.device == "cuda":
            mf, tensors = shielding_on_gpu(mol, self.level)
            solution = with_orbitals(mf, self.level, spare)
        else:
            solution = solve_closed_shell(mol, self.level, spare)
        reason = self._judge(solution, atoms.info)
        atoms.info["energy"] = Hartree * float(solution.mf.e_tot)
        atoms.info["homo_lumo_gap"] = Hartree * solution.gap
        atoms.info["method"] = str(self.level)
        if reason is None or self.label_unstable:
            solution.free_memory()
            if tensors is None:
                tensors = self._tensors(solution)
            atoms.arrays["nmr_shielding"] = np.trace(tensors, axis1=1, axis2=2) / 3
            atoms.arrays["nmr_tensor"] = tensors.reshape(len(atoms), 9)
            _add_populations(atoms, solution)
        return reason

    def _judge(self, solution: ClosedShell, info: dict) -> str | None:
        """Test the stability, write its results to ``info``, and return the reason for a rejection, if any."""
        value, vector = triplet_stability(solution)
        info["lambda_triplet"] = Hartree * value
        info["rks_stable"] = value > 0
        if value > 0:
            info["s2"] = 0.0
            return None
        if self.spin_test == "stability":
            return f"the closed shell is triplet-unstable: lowest eigenvalue {Hartree * value:.3f} eV"
        found = broken_symmetry(solution, vector)
        info["s2"], info["broken_symmetry_lowering"] = found.spin_squared, Hartree * found.lowering
        if found.spin_squared < self.max_s2:
            return None
        return f"<S^2> of the broken-symmetry singlet is {found.spin_squared:.3f}, not below {self.max_s2}"

    def _tensors(self, solution: ClosedShell) -> np.ndarray:
        if self.level.fitting:
            return shielding_tensors(solution, self.level.response_tolerance)
        return exact_shielding(solution.mf, self.level.response_tolerance)


def _state_charge(atoms: Atoms, default: int) -> int:
    """Charge of a cluster, which is written to its ``info`` if it is the default of frames that state none."""
    charge = electronic_state(atoms, default).charge
    if charge and charge == default:
        atoms.info["charge"] = charge
    return charge


def _add_populations(atoms: Atoms, solution: ClosedShell):
    populations = gross_populations(solution)
    table = population_table(solution, populations)
    if table is None:
        atoms.arrays["mulliken_charge"] = mulliken_charges(solution, populations)
    else:
        names, atoms.arrays["gop"] = table
        atoms.info["gop_columns"] = " ".join(names)


VALENCE_LEVEL = ShieldingLevel(
    basis="lanl2dz",
    core_potential="lanl2dz",
    cartesian=False,
    fitting="def2-universal-jfit",
    grid=0,
    scf_tolerance=1e-6,
)
"""Valence-only B3LYP with one electron per sodium atom: 3 s for Na14, compared with 40 s for all electrons."""

LEAST_EIGENVALUE: float = -0.04
"""Threshold of the lowest eigenvalue in eV, slightly negative because all-electron closed shells are more stable."""

DECAY: float = 0.15  # decay constant of the hopping in 1/Å

UNIT_DISTANCE: float = 3.6
"""Distance in Å at which the hopping is one: the next-nearest-neighbour distance of generated sodium clusters."""

STABILITY_WRITTEN: tuple[str, ...] = ("tight_binding_gap", "valence_lambda_triplet")


def tight_binding_gap(pos: np.ndarray) -> float:
    r"""Compute the HOMO-LUMO gap of a tight-binding model with one s orbital and one electron per atom.

    The Hamiltonian is :math:`H_{ij} = -\exp(-0.15\,\text{Å}^{-1} (d_{ij} - 3.6\,\text{Å}))` for all pairs of atoms and
    zero on the diagonal. This crude model of a sodium cluster takes a fraction of a millisecond. If its gap is small,
    the closed shell is rarely stable.

    Args:
        pos: Positions ``[num_atoms, 3]`` in Å, of an even number of atoms.

    Returns:
        The gap in units of the hopping at 3.6 Å.

    Example:
        >>> square = np.array([[0, 0, 0], [3.6, 0, 0], [3.6, 3.6, 0], [0, 3.6, 0]])
        >>> round(tight_binding_gap(square), 12)  # two degenerate orbitals that share one pair of electrons
        0.0
    """
    hopping = -np.exp(-DECAY * (cdist(pos, pos) - UNIT_DISTANCE))
    np.fill_diagonal(hopping, 0.0)
    energies = np.linalg.eigvalsh(hopping)
    half = len(pos) // 2
    return float(energies[half] - energies[half - 1])


@dataclass(frozen=True)
class StabilityLabeller:
    r"""Test of the closed-shell stability of sodium clusters, before an all-electron calculation.

    Called with a cluster, it returns a copy with two values in ``info``: ``tight_binding_gap`` (see
    :func:`tight_binding_gap`) and ``valence_lambda_triplet``, the lowest eigenvalue in eV of the triplet stability
    matrix of valence-only B3LYP/LANL2DZ. Clusters with a small gap are rejected without the B3LYP calculation,
    clusters with a low eigenvalue after it.

    The filter of the paper on :math:`\langle S^2 \rangle` (Kaneko et al. 2023, section "Data set") rejects nearly all
    random clusters; this test avoids the all-electron calculation for most of them. The clusters that pass are a biased
    sample, which should be reported with any results.

    Args:
        min_gap: Clusters with a smaller tight-binding gap are rejected.
        least: Clusters with a lower eigenvalue (in eV) are rejected.
        charge: Total charge in e of clusters whose frame does not state a charge. The gap is that of the neutral
            cluster.
        memory: Memory limit of a calculation in bytes; by default the free memory.

    Raises:
        MissingExtra: If PySCF is not installed.
        InputError: If the gap is negative, or a threshold not a number.

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
        if not self.min_gap >= 0:
            raise InputError(f"the minimum tight-binding gap must not be negative, got {self.min_gap}")
        if np.isnan(self.least):
            raise InputError("the minimum eigenvalue must be a number (in eV), got nan")

    def problem(self, atoms: Atoms) -> str | None:
        """Reason why a cluster cannot be tested, if any: other elements than sodium, an odd number of electrons."""
        others = sorted(set(atoms.get_chemical_symbols()) - {"Na"})
        if others:
            return f"the test is for Na alone, not for {', '.join(others)}; use label shielding for other elements"
        return problem_of(atoms, self.charge, VALENCE_LEVEL)

    def needed_memory(self, atoms: Atoms) -> float:
        """Minimum memory in bytes to test a cluster."""
        return needed_memory(atoms, VALENCE_LEVEL)

    def __call__(self, atoms: Atoms) -> LabelResult:
        result = unlabelled(atoms, STABILITY_WRITTEN)
        charge = _state_charge(result, self.charge)
        gap = result.info["tight_binding_gap"] = tight_binding_gap(result.positions)
        note = f"tight-binding gap {gap:.3f}"
        if gap < self.min_gap:
            return LabelResult(result, f"the tight-binding gap is {gap:.3f}, below {self.min_gap:g}", note)
        limit = free_memory() if self.memory is None else self.memory
        mol = VALENCE_LEVEL.molecule(result, charge)
        try:
            solution = solve_closed_shell(mol, VALENCE_LEVEL, spare_memory(limit, result, VALENCE_LEVEL))
            value = Hartree * triplet_stability(solution)[0]
        except LabellingError as error:
            return LabelResult(result, str(error), note)
        result.info["valence_lambda_triplet"] = value
        note = f"{note}, lambda_triplet {value:.3f} eV"
        if value < self.least:
            reason = f"the closed shell of the valence electrons is triplet-unstable: lowest eigenvalue {value:.3f} eV"
            return LabelResult(result, reason, note)
        return LabelResult(result, None, note)
