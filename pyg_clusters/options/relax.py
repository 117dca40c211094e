"""Options of ``pyg-clusters relax``."""

from dataclasses import dataclass

from pyg_clusters.options.common import FrameOptions, check_counts, check_positive


@dataclass(kw_only=True)
class RelaxOptions(FrameOptions):
    """Relax frames to the nearest local minima. Each gets, named after the calculator, gupta_energy (eV), gupta_fmax
    (eV/Å), gupta_steps, and converged; source_file and source_frame; and keeps names, groups, charge and spin. Every
    other value belongs to the old positions and becomes initial_*. Gupta and models relax many frames at once; other
    calculators relax one by one, each frame is written when it is finished, and an interrupted run resumes with the
    same arguments.
    """

    calculator: str = "gupta"
    """energy and forces: gupta, emt, tblite, pyscf, gap:FILE or module:Class, or a trained model"""
    fmax: float = 0.01
    """largest force on an atom at the end, in eV/Å"""
    steps: int = 1000
    """maximum number of force evaluations per frame"""
    overwrite: bool = False
    """replace an existing file"""
    out: str
    """relaxed.extxyz; with gupta or a model also .extxyz.xz"""

    def __post_init__(self):
        check_positive(self, "fmax", unit="eV/Å")
        check_counts(self, "steps")
