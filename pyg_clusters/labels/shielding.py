"""Labelling clusters with shieldings."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from ase import Atoms

from pyg_clusters.errors import InputError
from pyg_clusters.frames.electronic_state import electronic_state
from pyg_clusters.labels.dft.kohn_sham import (
    ClosedShell,
    gross_populations,
    mulliken_charges,
    population_table,
    solve_closed_shell,
    with_orbitals,
)
from pyg_clusters.labels.dft.level import GB, ShieldingLevel, free_memory, needed_memory, problem_of, spare_memory
from pyg_clusters.labels.dft.other_programs import check_gpu, exact_shielding, shielding_on_gpu
from pyg_clusters.labels.dft.pyscf_import import HARTREE, need_pyscf
from pyg_clusters.labels.dft.shielding_tensor import shielding_tensors
from pyg_clusters.labels.dft.stability import broken_symmetry, triplet_stability
from pyg_clusters.labels.labelling import LabellingError, LabelResult, unlabelled

WRITTEN: tuple[str, ...] = (
    *("nmr_shielding", "nmr_tensor", "gop", "gop_columns", "mulliken_charge", "method", "homo_lumo_gap"),
    *("lambda_triplet", "rks_stable", "s2", "broken_symmetry_lowering"),
)
"""Keys written for a cluster besides its energy; values of an earlier label are removed."""


@dataclass(frozen=True)
class ShieldingLabeller:
    r"""Gives a cluster the shielding of every atom by density functional theory (Kaneko et al. 2023).

    Called with a cluster it returns a copy that has, per atom, ``nmr_shielding`` (isotropic, ppm), ``nmr_tensor`` (row
    by row, ppm) and ``gop`` (gross orbital populations in electrons; their names are ``info["gop_columns"]``), or
    ``mulliken_charge`` where there are several elements; and in ``info``: ``energy`` (eV), ``homo_lumo_gap`` (eV),
    ``lambda_triplet`` (eV, lowest eigenvalue of the triplet stability matrix), ``rks_stable`` (whether it is positive),
    ``s2`` (:math:`\langle S^2 \rangle` of the broken-symmetry singlet, 0 where the closed shell is stable) and
    ``method``.

    Shieldings are those of the closed shell. A cluster whose :math:`\langle S^2 \rangle` is too large, as the paper
    has it, or whose calculation does not converge, is rejected with the reason.

    Args:
        level: Functional, basis, and numerical settings.
        charge: Total charge of clusters whose frame states none.
        max_s2: A cluster is rejected from this :math:`\langle S^2 \rangle` on.
        spin_test: ``"s2"`` follows an instability to the broken-symmetry singlet, ``"stability"`` sets aside all
            clusters with a triplet-unstable closed shell, which is the cheap test.
        label_unstable: Also compute the shieldings of clusters that are rejected for their spin.
        memory: Bytes that a calculation may take; by default most of what is free.
        device: ``"cpu"``, or ``"cuda"`` for gpu4pyscf.

    Raises:
        MissingExtra: If PySCF is not installed, or gpu4pyscf for a GPU.
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
            raise InputError("shieldings come from the cores: take a level without core_potential")
        if self.max_s2 <= 0:
            raise InputError(f"the limit of <S^2> must be positive, got {self.max_s2}")
        if self.device not in ("cpu", "cuda"):
            raise InputError(f"the device is cpu or cuda, got {self.device!r}")
        if self.device == "cuda":
            check_gpu()

    def problem(self, atoms: Atoms) -> str | None:
        """Reason for not labelling a cluster, if any: odd electrons, an element without basis, not enough memory."""
        problem = problem_of(atoms, self.charge, self.level)
        if problem is None and self.needed_memory(atoms) > self.limit:
            needed, given = self.needed_memory(atoms) / GB, self.limit / GB
            return (
                f"{len(atoms)} atoms need {needed:.1f} GB of memory, {given:.1f} are given; see --memory and --workers"
            )
        return problem

    def needed_memory(self, atoms: Atoms) -> float:
        """Number of bytes without which a cluster cannot be labelled."""
        return needed_memory(atoms, self.level)

    @property
    def limit(self) -> float:
        """Bytes that a calculation may take."""
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
        mol = self.level.molecule(atoms, electronic_state(atoms, self.charge).charge)
        spare = spare_memory(self.limit, atoms, self.level)
        tensors = None
        if self.device == "cuda":
            mf, tensors = shielding_on_gpu(mol, self.level)
            solution = with_orbitals(mf, self.level, spare)
        else:
            solution = solve_closed_shell(mol, self.level, spare)
        reason = self._judge(solution, atoms.info)
        atoms.info["energy"] = HARTREE * float(solution.mf.e_tot)
        atoms.info["homo_lumo_gap"] = HARTREE * solution.gap
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
        """Write the measures of the spin, and return the reason for a rejection, if any."""
        value, vector = triplet_stability(solution)
        info["lambda_triplet"] = HARTREE * value
        info["rks_stable"] = value > 0
        if value > 0:
            info["s2"] = 0.0
            return None
        if self.spin_test == "stability":
            return f"the closed shell is triplet-unstable: lowest eigenvalue {HARTREE * value:.3f} eV"
        found = broken_symmetry(solution, vector)
        info["s2"], info["broken_symmetry_lowering"] = found.spin_squared, HARTREE * found.lowering
        if found.spin_squared < self.max_s2:
            return None
        return f"<S^2> of the broken-symmetry singlet is {found.spin_squared:.3f}, not below {self.max_s2}"

    def _tensors(self, solution: ClosedShell) -> np.ndarray:
        if self.level.fitting:
            return shielding_tensors(solution, self.level.response_tolerance)
        return exact_shielding(solution.mf, self.level.response_tolerance)


def _add_populations(atoms: Atoms, solution: ClosedShell):
    populations = gross_populations(solution)
    table = population_table(solution, populations)
    if table is None:
        atoms.arrays["mulliken_charge"] = mulliken_charges(solution, populations)
    else:
        names, atoms.arrays["gop"] = table
        atoms.info["gop_columns"] = " ".join(names)
