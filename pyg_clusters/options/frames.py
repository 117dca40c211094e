"""Options of the verbs for converting and describing frames."""

from dataclasses import dataclass, field
from typing import Literal

from pyg_clusters.options import (
    VERBS,
    DeviceOptions,
    EnergyUnitOptions,
    FrameOptions,
    ModelOptions,
    OverwriteOptions,
    Verb,
    check_counts,
    verb,
)


@verb(
    "convert",
    "pyg_clusters.frames.convert",
    "convert frames of any format to one HDF5 store",
    "md.extxyz other.traj --out frames.h5 --properties energy",
)
@dataclass(kw_only=True)
class ConvertOptions(OverwriteOptions, FrameOptions):
    """Convert frames of any format and size to one HDF5 file, which is read many times faster than text: positions,
    elements, the origin of each frame, and the named labels.
    """

    properties: list[str] = field(default_factory=list)
    """values per frame to store (energy)"""
    atom_properties: list[str] = field(default_factory=list)
    """values per atom to store (forces)"""
    topology: str | None = None
    """file with the elements of the atoms, for formats with positions only (DCD, XTC, ...)"""
    single: bool = False
    """store positions in single precision, in half the space"""
    uncompressed: bool = False
    """for training from disk: single frames are read many times faster"""
    out: str
    """frame store to write (.h5)"""


@verb("info", "pyg_clusters.analysis.info", "summarise a file of frames, a run or a model", "md.extxyz")
@dataclass(kw_only=True)
class InfoOptions:
    """Print the contents of files of frames (sizes, elements, labels), of run folders and of saved models."""

    paths: list[str] = field(metadata={"positional": True})
    """files or folders of frames, run folders, folders or names of models"""
    on_bad: Literal["stop", "skip"] = "stop"
    """frames that cannot be used: stop at the first, or skip and list them"""


@verb(
    "describe",
    "pyg_clusters.analysis.describe",
    "compute g(r), shell radii, shell counts and isomers with equal counts",
    "gallium --out description",
)
@dataclass(kw_only=True)
class DescribeOptions(OverwriteOptions, EnergyUnitOptions, FrameOptions):
    """Describe a set of clusters by the topological descriptor: pair-distance distribution g(r), shell radii suggested
    from its minima, mean counts per shell, and the number of distinct isomers with identical counts. With --out:
    summary.json, tables (.csv), figures and report.html.
    """

    frames: list[str] = field(metadata={"positional": True})
    """files of frames; or gallium, sodium, copper_gold for the shipped data"""
    target: str | None = None
    """key of the energy in the frames, for energy differences of isomers with identical counts"""
    radii: str | None = None
    """shell radii in Å, for example 3.49,6.3; by default those of DART for gallium, for other elements those suggested
    from g(r)"""
    out: str | None = None
    """folder of the results; without it they are only printed"""


VERBS["analyse"] = Verb("analyse core and surface atoms", kind="analysis")


@verb(
    "analyse core-surface",
    "pyg_clusters.analysis.analyse_core_surface",
    "core and surface atoms in the features of a model",
    "runs/dart gallium_minima --sizes 70 --out core_surface",
)
@dataclass(kw_only=True)
class CoreSurfaceOptions(OverwriteOptions, DeviceOptions, FrameOptions, ModelOptions):
    """Analyse core and surface atoms in the features of a model (Modee et al. 2021, section 3.4): the 32 features of
    each atom after the third hidden layer of the interaction network, their t-SNE, silhouettes, and a linear probe
    cross-validated over clusters, compared with the same probe on the shell counts. Writes atoms.csv,
    core_surface.json, figures and report.html.
    """

    sizes: str | None = None
    """sizes of the clusters to use, in atoms; ``60:70`` is a range"""
    radii: str | None = None
    """end of the core and start of the surface, in Å from the centre of mass; by default the radii of the model"""
    perplexity: float = 30.0
    """perplexity of t-SNE"""
    seed: int = 0
    """seed of t-SNE"""
    group: str | None = None
    """key in the frames: clusters with the same value are kept in the same fold"""
    out: str
    """folder of the results"""

    def __post_init__(self):
        check_counts(self, "seed", least=0)
