"""Options of the verbs for structures and their labels."""

from dataclasses import dataclass
from typing import Literal

from pyg_clusters.errors import InputError
from pyg_clusters.options import (
    VERBS,
    FrameOptions,
    OverwriteOptions,
    RayOptions,
    Verb,
    check_counts,
    check_positive,
    verb,
)

VERBS["generate"] = Verb("generate random clusters, or search for distinct minima", kind="algorithm")


@verb(
    "generate sblda",
    "pyg_clusters.structures.generate.generate_sblda",
    "random clusters with given distances to the two nearest neighbours",
    "--element Na --sizes 14:30:2,40 --count 200 --seed 0 --out na.extxyz",
)
@dataclass(kw_only=True)
class SbldaOptions(OverwriteOptions):
    """Generate random clusters by the second-order bond-length-distribution algorithm: every atom is added at
    normally distributed distances from its nearest and next-nearest neighbour. The seed of each cluster is written to
    the file.
    """

    element: str = "Na"
    """symbol of the element"""
    sizes: str
    """numbers of atoms: 14:30:2,40 is 14, 16, ..., 30, 40"""
    count: int = 200
    """number of clusters of each size"""
    seed: int = 0
    """seed of the random numbers"""
    mu1: float | None = None
    """mean nearest distance in Å; 3.50 for Na"""
    mu2: float | None = None
    """mean next-nearest distance in Å; 3.60 for Na"""
    sigma1: float = 0.1
    """standard deviation of the nearest distance in Å"""
    sigma2: float = 0.1
    """standard deviation of the next-nearest distance in Å"""
    out: str
    """clusters.extxyz, or .extxyz.xz"""

    def __post_init__(self):
        check_counts(self, "count")
        check_counts(self, "seed", least=0)


@dataclass(kw_only=True)
class QuenchSettings:
    """Settings of a search for minima, besides the compositions and the calculator."""

    seed: int = 0
    """seed of the search"""
    per_segment: int = 5
    """maximum number of minima from one start"""
    fmax: float = 0.01
    """largest force on an atom of a minimum in eV/Å"""
    steps: int = 1000
    """maximum number of force evaluations of a quench"""
    temperature: float = 1000.0
    """temperature of hot runs in K, multiplied by a random factor of 0.7 to 1.5"""
    md_steps: int = 200
    """steps of a hot run"""
    timestep: float = 4.0
    """time step of a hot run in fs"""

    def __post_init__(self):
        check_positive(self, "fmax", unit="eV/Å")
        check_positive(self, "temperature", "timestep")
        check_counts(self, "per_segment", "steps", "md_steps")
        check_counts(self, "seed", least=0)


@verb(
    "generate quench",
    "pyg_clusters.structures.generate.generate_quench",
    "distinct local minima of a potential, also of alloys",
    "--elements Cu Au --sizes 20:60 --calculator emt --out cuau.extxyz",
)
@dataclass(kw_only=True)
class QuenchOptions(OverwriteOptions, QuenchSettings):
    """Search for distinct local minima of clusters and alloy clusters by quenching random compact structures, frames of
    hot molecular dynamics, basin-hopping moves and exchanges of unlike atoms. Every minimum is written when it is
    found, with its energy and the segment of the search that it belongs to (group). An interrupted search resumes with
    the same arguments and gives the same file as an uninterrupted one; with a larger --count it continues.
    """

    formula: list[str] | None = None
    """compositions, for example Cu13Au7; or use --elements and --sizes"""
    elements: list[str] | None = None
    """symbols of the elements"""
    sizes: str | None = None
    """numbers of atoms: 14:30:2,40 is 14, 16, ..., 30, 40"""
    compositions: Literal["all", "mixed"] = "all"
    """with --elements: all compositions of each size, or only those with every element (mixed)"""
    calculator: str
    """energy and forces: gupta, emt, tblite, pyscf, gap:FILE or module:Class"""
    count: int = 100
    """total number of minima"""
    out: str
    """minima.extxyz; each minimum is appended"""

    def __post_init__(self):
        QuenchSettings.__post_init__(self)
        check_counts(self, "count")
        if bool(self.formula) == bool(self.elements) or bool(self.elements) != bool(self.sizes):
            raise InputError("give the compositions: either --formula Cu13Au7 ..., or --elements Cu Au --sizes 20:60")


@verb(
    "generate hot",
    "pyg_clusters.structures.generate.generate_hot",
    "frames of molecular dynamics from given clusters, with forces",
    "cuau.extxyz --calculator emt --count 1000 --out cuau_hot.extxyz",
)
@dataclass(kw_only=True)
class HotOptions(OverwriteOptions, FrameOptions):
    """Generate frames with forces, to train on in addition to minima: each is the last frame of a short
    molecular-dynamics run from one of the given clusters, chosen at random without replacement. It has energy, forces
    and the group of that cluster, so that a split by group keeps both in one part. An interrupted run resumes with the
    same arguments; with a larger --count it continues.
    """

    calculator: str
    """energy and forces: gupta, emt, tblite, pyscf, gap:FILE or module:Class"""
    count: int = 1000
    """total number of frames"""
    seed: int = 0
    """seed of the random numbers"""
    min_temperature: float = 300.0
    """lowest temperature in K; each run has a random one"""
    max_temperature: float = 1500.0
    """highest temperature in K"""
    min_steps: int = 25
    """smallest number of steps of a run; each has a random one"""
    max_steps: int = 74
    """largest number of steps of a run"""
    timestep: float = 4.0
    """time step in fs"""
    out: str
    """hot.extxyz; each frame is appended"""

    def __post_init__(self):
        check_counts(self, "count")
        check_counts(self, "seed", least=0)
        check_positive(self, "timestep", unit="fs")
        for name in ("temperature", "steps"):
            least, most = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if not 0 < least <= most < float("inf"):
                raise InputError(f"--min-{name} must be positive and at most --max-{name}, got {least} and {most}")


@verb(
    "relax",
    "pyg_clusters.structures.relax_frames.relax_frames",
    "relax clusters to local minima",
    "na.extxyz --calculator gupta --out relaxed.extxyz",
)
@dataclass(kw_only=True)
class RelaxOptions(OverwriteOptions, FrameOptions):
    """Relax frames to the nearest local minima. Results are named after the calculator: gupta_energy (eV), gupta_fmax
    (eV/Å), gupta_steps; converged, source_file and source_frame are added. Names, groups, charge and spin are kept;
    other values belong to the initial positions and become initial_*. Gupta and models relax many frames at once; other
    calculators relax one by one, write each frame when it is finished, and an interrupted run resumes with the same
    arguments.
    """

    calculator: str = "gupta"
    """energy and forces: gupta, emt, tblite, pyscf, gap:FILE or module:Class, or a trained model"""
    fmax: float = 0.01
    """largest force on an atom at the end, in eV/Å"""
    steps: int = 1000
    """maximum number of force evaluations per frame"""
    out: str
    """relaxed.extxyz; with gupta or a model also .extxyz.xz"""

    def __post_init__(self):
        check_positive(self, "fmax", unit="eV/Å")
        check_counts(self, "steps")


@dataclass(kw_only=True)
class LabelOptions(OverwriteOptions, RayOptions, FrameOptions):
    """Options that all labels share."""

    workers: int = 1
    """number of processes, each with its own frame"""
    shard: str | None = None
    """i/n: label every n-th frame from frame i - 1 on"""
    threads: int = 1
    """threads per process; more workers are more efficient than more threads"""
    out: str
    """labelled.extxyz; each frame is appended"""

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "workers", "threads")
        if self.engine == "ray" and self.workers > 1:
            raise InputError(f"--workers {self.workers}: a Ray cluster has its own workers; leave it out")


VERBS["label"] = Verb("label clusters with energies and forces, or with DFT shieldings", kind="label")


@verb(
    "label shielding",
    "pyg_clusters.labels.label.label_shielding",
    "NMR shieldings and orbital populations by DFT",
    "na.extxyz --workers 2 --out na_shieldings.extxyz",
)
@dataclass(kw_only=True)
class LabelShieldingOptions(LabelOptions):
    """Compute the shielding of every atom with PySCF, B3LYP/6-31G(d) with GIAOs: nmr_shielding and nmr_tensor (ppm),
    gop (gross orbital populations), energy (eV), s2. Each frame is written when it is finished; an interrupted run
    resumes with the same arguments. Frames whose broken-symmetry singlet is not nearly a closed shell, and frames that
    do not converge, are written to OUT.set_aside.extxyz with the reason.
    """

    charge: int = 0
    """total charge of frames that do not state one"""
    max_s2: float = 0.05
    """frames with this <S^2> or more are rejected"""
    spin_test: Literal["s2", "stability"] = "s2"
    """s2: by the broken-symmetry singlet; stability: by the stability of the closed shell alone, which is cheaper"""
    label_unstable: bool = False
    """also compute shieldings of frames that are rejected for their spin"""
    exact: bool = False
    """exact integrals instead of density fitting, many times slower"""
    grid: int = 1
    """PySCF's level of the integration grid, 0 to 9"""
    scf_tolerance: float = 1e-7
    """convergence of the energy in hartree"""
    response_tolerance: float = 1e-4
    """convergence of the coupled-perturbed equations"""
    memory: float | None = None
    """memory in GB for all workers; nearly all free memory by default; on Ray each frame reserves what it needs"""
    device: Literal["cpu", "cuda"] = "cpu"
    """cuda: gpu4pyscf, with exact integrals"""

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "memory", unit="GB")


@verb(
    "label prescreen",
    "pyg_clusters.labels.label.label_prescreen",
    "sodium clusters that are worth a shielding calculation",
    "na.extxyz --min-gap 0.14 --out na_stable.extxyz",
)
@dataclass(kw_only=True)
class LabelPrescreenOptions(LabelOptions):
    """Select the sodium clusters that are worth a shielding calculation: tight_binding_gap (one s orbital per atom),
    and valence_lambda_triplet (eV, lowest eigenvalue of the triplet stability matrix with one electron per atom).
    Frames with a small gap or a low eigenvalue are written to OUT.set_aside.extxyz, with the reason. Each frame is
    written when it is finished; an interrupted run resumes with the same arguments.
    """

    charge: int = 0
    """total charge of frames that do not state one"""
    min_gap: float = 0.0
    """minimum tight-binding gap, in units of the hopping at 3.6 Å; frames below it are rejected at once"""
    least: float = -0.04
    """minimum eigenvalue in eV"""


@verb(
    "label energy",
    "pyg_clusters.labels.label.label_energy",
    "energies and forces of a calculator",
    "na.extxyz --calculator tblite --out na_energies.extxyz",
)
@dataclass(kw_only=True)
class LabelEnergyOptions(LabelOptions):
    """Compute energies (eV) and forces (eV/Å) of frames with a calculator, replacing those they have. Each frame is
    written when it is finished; an interrupted run resumes with the same arguments. Frames on which the calculator
    fails are written to OUT.set_aside.extxyz, with the reason.
    """

    calculator: str
    """energy and forces: gupta, emt, tblite, pyscf, gap:FILE or module:Class"""
