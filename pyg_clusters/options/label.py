"""Options of ``pyg-clusters label``."""

from dataclasses import dataclass
from typing import Literal

from pyg_clusters.options.common import FrameOptions, check_counts, check_positive


@dataclass(kw_only=True)
class LabelOptions(FrameOptions):
    """Options that all labels share."""

    workers: int = 1
    """number of processes, each with its own frame"""
    threads: int = 1
    """threads per process; more workers use the processors better than more threads"""
    overwrite: bool = False
    """start again, whatever is in the file"""
    out: str
    """labelled.extxyz; each frame is appended"""

    def __post_init__(self):
        check_counts(self, "workers", "threads")


@dataclass(kw_only=True)
class LabelEnergyOptions(LabelOptions):
    """Compute energies (eV) and forces (eV/Å) of frames with a calculator, replacing those they have. Each frame is
    written when it is finished; an interrupted run resumes with the same arguments. Frames on which the calculator
    fails are written to OUT.set_aside.extxyz, with the reason.
    """

    calculator: str
    """energy and forces: gupta, emt, tblite, pyscf, gap:FILE or module:Class"""


@dataclass(kw_only=True)
class LabelPrescreenOptions(LabelOptions):
    """Select the sodium clusters that are worth a shielding calculation: tight_binding_gap (one s orbital per atom),
    and valence_lambda_triplet (eV, lowest eigenvalue of the triplet stability matrix with one electron per atom).
    Frames with a small gap or a low eigenvalue are written to OUT.set_aside.extxyz, with the reason. Each frame is
    written when it is finished; an interrupted run resumes with the same arguments.
    """

    charge: int = 0
    """total charge of frames that state none"""
    min_gap: float = 0.0
    """minimum tight-binding gap, in units of the hopping at 3.6 Å; frames below it are rejected at once"""
    least: float = -0.04
    """minimum eigenvalue in eV"""


@dataclass(kw_only=True)
class LabelShieldingOptions(LabelOptions):
    """Compute the shielding of every atom with PySCF, B3LYP/6-31G(d) with GIAOs: nmr_shielding and nmr_tensor (ppm),
    gop (gross orbital populations), energy (eV), s2. Each frame is written when it is finished; an interrupted run
    resumes with the same arguments. Frames whose broken-symmetry singlet is not nearly a closed shell, and those that
    do not converge, are written to OUT.set_aside.extxyz, with the reason.
    """

    charge: int = 0
    """total charge of frames that state none"""
    max_s2: float = 0.05
    """frames with this <S^2> or more are rejected"""
    spin_test: Literal["s2", "stability"] = "s2"
    """s2: by the broken-symmetry singlet; stability: by the stability of the closed shell alone, which is cheaper"""
    label_unstable: bool = False
    """also compute shieldings of frames that are rejected for their spin"""
    exact: bool = False
    """exact integrals instead of density fitting: many times slower"""
    grid: int = 1
    """PySCF's level of the integration grid, 0 to 9"""
    scf_tolerance: float = 1e-7
    """convergence of the energy in hartree"""
    response_tolerance: float = 1e-4
    """convergence of the coupled-perturbed equations"""
    memory: float | None = None
    """memory in GB for all workers; nearly all free memory by default"""
    device: Literal["cpu", "cuda"] = "cpu"
    """cuda: gpu4pyscf, with exact integrals"""

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "memory", unit="GB")
