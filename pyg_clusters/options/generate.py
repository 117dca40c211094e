"""Options of ``pyg-clusters generate``."""

from dataclasses import dataclass
from typing import Literal

from pyg_clusters.errors import InputError
from pyg_clusters.options.common import FrameOptions, check_counts, check_positive


@dataclass(kw_only=True)
class SbldaOptions:
    """Generate random clusters by the second-order bond-length-distribution algorithm: every atom is added at
    normally distributed distances from its nearest and next-nearest neighbour. The seed of each cluster is written
    with it.
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
    overwrite: bool = False
    """replace an existing file"""
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


@dataclass(kw_only=True)
class QuenchOptions(QuenchSettings):
    """Search distinct local minima of clusters and alloy clusters: random compact starts, hot molecular-dynamics
    runs, basin-hopping moves and exchanges of unlike atoms, each quenched. Every minimum is written when it is found,
    with its energy and the segment of the search that it belongs to (group). An interrupted search resumes with the
    same arguments and gives the file of an uninterrupted one; with a larger --count it continues.
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
    no_binding: bool = False
    """write no binding_energy: for calculators that cannot treat an isolated atom"""
    overwrite: bool = False
    """start again, whatever is in the file"""
    out: str
    """minima.extxyz; each minimum is appended"""

    def __post_init__(self):
        QuenchSettings.__post_init__(self)
        check_counts(self, "count")
        if bool(self.formula) == bool(self.elements) or bool(self.elements) != bool(self.sizes):
            raise InputError("give the compositions: either --formula Cu13Au7 ..., or --elements Cu Au --sizes 20:60")


@dataclass(kw_only=True)
class HotOptions(FrameOptions):
    """Generate frames with forces, to train on beside minima: each is the end of a short molecular-dynamics run from
    one of the given clusters, chosen at random, none twice. It has energy, forces and the group of that cluster, so
    that a split by group keeps both in one part. An interrupted run resumes with the same arguments; with a larger
    --count it continues.
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
    no_binding: bool = False
    """write no binding_energy: for calculators that cannot treat an isolated atom"""
    overwrite: bool = False
    """start again, whatever is in the file"""
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
