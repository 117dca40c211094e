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
    "random clusters with given nearest-neighbour distances",
    "--element Na --sizes 14:30:2,40 --count 200 --seed 0 --out na.extxyz",
)
@dataclass(kw_only=True)
class SbldaOptions(OverwriteOptions):
    """Generate random clusters by the second-order bond-length-distribution algorithm: every atom is added at normally
    distributed distances from its nearest and next-nearest neighbours. The seed of each cluster is written to the file.
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
    """mean distance to the nearest neighbour in Å; by default 3.50 for Na"""
    mu2: float | None = None
    """mean distance to the next-nearest neighbour in Å; by default 3.60 for Na"""
    sigma1: float = 0.1
    """standard deviation of the distance to the nearest neighbour in Å"""
    sigma2: float = 0.1
    """standard deviation of the distance to the next-nearest neighbour in Å"""
    out: str
    """file of the clusters (.extxyz or .extxyz.xz)"""

    def __post_init__(self):
        check_counts(self, "count")
        check_counts(self, "seed", least=0)


@dataclass(kw_only=True)
class QuenchSettings:
    """Settings of a search for minima other than the compositions and the calculator."""

    seed: int = 0
    """seed of the search"""
    per_segment: int = 5
    """maximum number of minima per starting structure"""
    fmax: float = 0.01
    """largest remaining force on an atom of a minimum in eV/Å"""
    steps: int = 1000
    """maximum number of force evaluations of a quench"""
    temperature: float = 1000.0
    """temperature of the molecular dynamics in K, multiplied by a random factor from 0.7 to 1.5"""
    md_steps: int = 200
    """number of steps of each run of molecular dynamics"""
    timestep: float = 4.0
    """time step of the molecular dynamics in fs"""

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
    """Search for distinct local minima, also of alloys, by quenching random compact structures, frames of
    high-temperature molecular dynamics, basin-hopping moves and exchanges of unlike atoms. Every minimum is written
    when it is found, with its energy and its segment of the search (group). Repeating the command resumes an
    interrupted search, with the same result as an uninterrupted one; a larger --count continues the search.
    """

    formula: list[str] | None = None
    """compositions, for example Cu13Au7; the alternative is --elements with --sizes"""
    elements: list[str] | None = None
    """symbols of the elements"""
    sizes: str | None = None
    """numbers of atoms: 14:30:2,40 is 14, 16, ..., 30, 40"""
    compositions: Literal["all", "mixed"] = "all"
    """for --elements: all compositions of each size, or only those that contain every element (mixed)"""
    calculator: str
    """calculator of energies and forces: gupta, emt, tblite, pyscf, gap:FILE or module:Class"""
    count: int = 100
    """total number of minima"""
    out: str
    """file to which each minimum is appended (.extxyz)"""

    def __post_init__(self):
        QuenchSettings.__post_init__(self)
        check_counts(self, "count")
        if bool(self.formula) == bool(self.elements) or bool(self.elements) != bool(self.sizes):
            raise InputError("give the compositions: either --formula Cu13Au7 ..., or --elements Cu Au --sizes 20:60")


@verb(
    "generate hot",
    "pyg_clusters.structures.generate.generate_hot",
    "frames of molecular dynamics with forces",
    "cuau.extxyz --calculator emt --count 1000 --out cuau_hot.extxyz",
)
@dataclass(kw_only=True)
class HotOptions(OverwriteOptions, FrameOptions):
    """Generate frames with forces, for training in addition to minima: each is the last frame of a short
    molecular-dynamics run that starts from one of the given clusters, chosen at random without replacement. It has the
    group of that cluster, so that a split by group keeps both in one part. Repeating the command resumes an interrupted
    run; a larger --count adds frames.
    """

    calculator: str
    """calculator of energies and forces: gupta, emt, tblite, pyscf, gap:FILE or module:Class"""
    count: int = 1000
    """total number of frames"""
    seed: int = 0
    """seed of the random numbers"""
    min_temperature: float = 300.0
    """lowest temperature in K; the temperature of each run is random"""
    max_temperature: float = 1500.0
    """highest temperature in K"""
    min_steps: int = 25
    """smallest number of steps of a run; the number of each run is random"""
    max_steps: int = 74
    """largest number of steps of a run"""
    timestep: float = 4.0
    """time step in fs"""
    out: str
    """file to which each frame is appended (.extxyz)"""

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
    other values belong to the initial positions and are renamed to initial_*. Gupta and models relax many frames at
    once. With other calculators, frames are relaxed one by one and written as they are finished; repeating the command
    resumes an interrupted run.
    """

    calculator: str = "gupta"
    """calculator of energies and forces: gupta, emt, tblite, pyscf, gap:FILE or module:Class, or a trained model"""
    fmax: float = 0.01
    """largest remaining force on an atom, in eV/Å"""
    steps: int = 1000
    """maximum number of force evaluations per frame"""
    out: str
    """file of the relaxed frames (.extxyz; with gupta or a model also .extxyz.xz)"""

    def __post_init__(self):
        check_positive(self, "fmax", unit="eV/Å")
        check_counts(self, "steps")


@dataclass(kw_only=True)
class LabelOptions(OverwriteOptions, RayOptions, FrameOptions):
    """Options shared by all labels."""

    workers: int = 1
    """number of processes, each of which calculates one frame at a time"""
    shard: str | None = None
    """i/n: label every n-th frame, starting at frame i - 1"""
    threads: int = 1
    """threads per process; more workers are more efficient than more threads"""
    out: str
    """file to which each labelled frame is appended (.extxyz)"""

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "workers", "threads")
        if self.engine == "ray" and self.workers > 1:
            raise InputError(f"--workers {self.workers}: a Ray cluster has its own workers; leave out --workers")


VERBS["label"] = Verb("label clusters with energies and forces, or shieldings", kind="label")


@verb(
    "label shielding",
    "pyg_clusters.labels.label.label_shielding",
    "NMR shieldings and orbital populations by DFT",
    "na.extxyz --workers 2 --out na_shieldings.extxyz",
)
@dataclass(kw_only=True)
class LabelShieldingOptions(LabelOptions):
    """Compute the shielding of every atom with PySCF, by B3LYP/6-31G(d) with GIAOs: nmr_shielding and nmr_tensor (ppm),
    gop (gross orbital populations), energy (eV) and s2. Frames without a stable closed shell (--max-s2), and frames
    that do not converge, are written to OUT.set_aside.extxyz with the reason. Each frame is written when it is
    finished; repeating the command resumes an interrupted run.
    """

    charge: int = 0
    """total charge of frames that do not state one"""
    max_s2: float = 0.05
    """frames with this <S^2> or more are rejected"""
    spin_test: Literal["s2", "stability"] = "s2"
    """test of the closed shell: <S^2> of the broken-symmetry singlet, or only the stability of the closed shell, which
    is cheaper"""
    label_unstable: bool = False
    """also compute shieldings of frames that are rejected for their spin"""
    exact: bool = False
    """use exact integrals, many times slower than density fitting"""
    grid: int = 1
    """level of PySCF's integration grid, 0 to 9"""
    scf_tolerance: float = 1e-7
    """convergence threshold of the energy in hartree"""
    response_tolerance: float = 1e-4
    """convergence threshold of the coupled-perturbed equations"""
    memory: float | None = None
    """memory in GB for all workers; by default nearly all free memory; on Ray each frame reserves what it needs"""
    device: Literal["cpu", "cuda"] = "cpu"
    """device; cuda uses gpu4pyscf with exact integrals"""

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "memory", unit="GB")


@verb(
    "label prescreen",
    "pyg_clusters.labels.label.label_prescreen",
    "sodium clusters that are likely to have a stable closed shell",
    "na.extxyz --min-gap 0.14 --out na_stable.extxyz",
)
@dataclass(kw_only=True)
class LabelPrescreenOptions(LabelOptions):
    """Select sodium clusters that are likely to have a stable closed shell, which label shielding requires, by
    tight_binding_gap (one s orbital per atom) and valence_lambda_triplet (eV, lowest eigenvalue of the triplet
    stability matrix with one electron per atom). Frames with a small gap or a low eigenvalue are written to
    OUT.set_aside.extxyz, with the reason. Each frame is written when it is finished; repeating the command resumes an
    interrupted run.
    """

    charge: int = 0
    """total charge of frames that do not state one"""
    min_gap: float = 0.0
    """minimum tight-binding gap, in units of the hopping at 3.6 Å; frames below it are rejected without computing the
    eigenvalue"""
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
    """Compute energies (eV) and forces (eV/Å) of frames with a calculator, replacing those they have. Frames on which
    the calculator fails are written to OUT.set_aside.extxyz, with the reason. Each frame is written when it is
    finished; repeating the command resumes an interrupted run.
    """

    calculator: str
    """calculator of energies and forces: gupta, emt, tblite, pyscf, gap:FILE or module:Class"""
