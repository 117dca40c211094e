"""Options of the verbs that convert and describe frames, and predict for them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pyg_clusters.errors import InputError
from pyg_clusters.options import (
    VERBS,
    CoverageOptions,
    DeviceOptions,
    EnergyUnitOptions,
    EngineOptions,
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
    """Convert files of frames in any format to one HDF5 file, which is read many times faster than text. It contains
    positions, elements, the origin of each frame, and the labels selected by --properties and --atom-properties.
    """

    properties: list[str] = field(default_factory=list)
    """names of values per frame to store, such as energy"""
    atom_properties: list[str] = field(default_factory=list)
    """names of values per atom to store, such as forces"""
    topology: str | None = None
    """file with the elements of the atoms, for formats with positions only (DCD, XTC, ...)"""
    single: bool = False
    """store positions in single precision, which takes half the space"""
    uncompressed: bool = False
    """do not compress the file: training from disk reads single frames many times faster"""
    out: str
    """frame store to write (.h5)"""


@verb("info", "pyg_clusters.analysis.info", "summarise a file of frames, a run or a model", "md.extxyz")
@dataclass(kw_only=True)
class InfoOptions:
    """Print the contents of files of frames (sizes, elements, labels), of run folders and of saved models."""

    paths: list[str] = field(metadata={"positional": True})
    """files or folders of frames, run folders, folders or names of models"""
    on_bad: Literal["stop", "skip"] = "stop"
    """invalid frames: stop at the first, or skip and list them"""


@verb(
    "describe",
    "pyg_clusters.analysis.describe",
    "compute g(r), shell radii, shell counts and collisions",
    "gallium --out description",
)
@dataclass(kw_only=True)
class DescribeOptions(OverwriteOptions, EnergyUnitOptions, FrameOptions):
    """Describe a set of clusters by the topological descriptor: pair-distance distribution g(r), shell radii suggested
    by its minima, mean counts per shell, and the number of distinct isomers with identical counts. With --out, also
    write summary.json, tables (.csv), figures and report.html.
    """

    frames: list[str] = field(metadata={"positional": True})
    """files of frames; or gallium, sodium or copper_gold for the shipped data"""
    target: str | None = None
    """key of the energy in the frames, for energy differences between isomers with identical counts"""
    radii: str | None = None
    """shell radii in Å, for example 3.49,6.3; by default those of DART for gallium, and those suggested by g(r) for
    other elements"""
    out: str | None = None
    """folder of the results; without it, results are only printed"""


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
    each atom after the third hidden layer of the interaction network, their t-SNE, silhouette scores, and a linear
    probe cross-validated over clusters, compared with the same probe on the shell counts. The results are atoms.csv,
    core_surface.json, figures and report.html.
    """

    sizes: str | None = None
    """sizes of the clusters to use, in atoms; 60:70 is a range"""
    radii: str | None = None
    """outer radius of the core and inner radius of the surface, in Å from the centre of mass; by default the radii of
    the model"""
    perplexity: float = 30.0
    """perplexity of t-SNE"""
    seed: int = 0
    """seed of t-SNE"""
    group: str | None = None
    """key in the frames by which clusters are grouped: clusters with the same value are kept in the same fold"""
    out: str
    """folder of the results"""

    def __post_init__(self):
        check_counts(self, "seed", least=0)


SUFFIXES: tuple[str, ...] = (".csv", ".parquet", ".extxyz")  # of files of predictions


@verb(
    "predict",
    "pyg_clusters.inference.predict.predict",
    "predict energies of frames, or shieldings of their atoms",
    "gallium-forces md.extxyz --out predictions.csv",
)
@dataclass(kw_only=True)
class PredictOptions(OverwriteOptions, EngineOptions, CoverageOptions, FrameOptions, ModelOptions):
    """Predict the energy of every frame, or the shielding of every atom, and write a table, or a copy of the frames
    with all their properties (.extxyz). The columns are source_file and source_frame (file and index, from 0, from
    which the frame was first read), size (number of atoms), pred_energy (eV) and pred_energy_per_atom (eV). A model of
    shieldings writes a row per atom, with its index in the frame (from 0) and pred_nmr_shielding (ppm), or an array in
    .extxyz. An ensemble adds pred_energy_spread; --coverage adds pred_energy_low and pred_energy_high (eV), or the same
    for pred_nmr_shielding (ppm); pred_flag states how a frame differs from the training set. Repeating the command
    resumes an interrupted run.
    """

    topology: str | None = None
    """file with the elements of the atoms, for formats with positions only (DCD, XTC, ...)"""
    shard: str | None = None
    """i/n: predict only part i of n of the frames, for job arrays"""
    out: str
    """file of predictions (.csv, .parquet or .extxyz)"""

    def __post_init__(self):
        EngineOptions.__post_init__(self)
        CoverageOptions.__post_init__(self)
        suffix = Path(self.out).suffix
        if suffix not in SUFFIXES:
            raise InputError(f"{self.out}: cannot write {suffix!r} files; use one of {', '.join(SUFFIXES)}")


@verb(
    "spectrum",
    "pyg_clusters.analysis.spectrum",
    "compute NMR spectra from predicted shieldings",
    "sodium clusters.extxyz --width 10 --out spectrum",
)
@dataclass(kw_only=True)
class SpectrumOptions(OverwriteOptions, DeviceOptions, FrameOptions, ModelOptions):
    """Compute NMR spectra from predicted shieldings: broadened shifts (reference minus shielding) for each cluster
    size, also weighted by Boltzmann factors if the isomers have energies, and compared with DFT shieldings if present.
    The results are spectrum.csv, spectrum.json and spectrum.png.
    """

    reference: float | None = None
    """shielding of the NMR standard in ppm; by default that of hydrated Na+ (only for sodium)"""
    width: float = 10.0
    """full width of a line at half maximum in ppm"""
    shape: Literal["gaussian", "lorentzian"] = "gaussian"
    """line shape"""
    by: Literal["size", "all"] = "size"
    """one spectrum per cluster size, or one for all clusters"""
    temperature: float = 300.0
    """temperature in K for Boltzmann factors, if the frames have energies"""
    energy: str | None = None
    """key of the energy (eV) in the frames; by default energy"""
    target: str | None = None
    """key of the DFT shielding (ppm) of each atom; by default nmr_shielding"""
    out: str
    """folder of the results"""


@verb(
    "export",
    "pyg_clusters.inference.export.export",
    "write a model to a file for LAMMPS, i-PI, ASE, ...",
    "gallium-forces gallium.pt",
)
@dataclass(kw_only=True)
class ExportOptions(OverwriteOptions):
    """Write a model with forces to a file that runs without this package, for molecular dynamics in ASE, LAMMPS, i-PI
    and other programs that read metatomic models. This requires the extra metatomic.
    """

    model: str = field(metadata={"positional": True})
    """folder of a run or of a saved model, or the name of a pretrained model"""
    file: str = field(metadata={"positional": True})
    """file to write (.pt)"""
    device: Literal["cpu", "cuda"] = "cpu"
    """the only device on which the file will run"""

    def __post_init__(self):
        if not self.file.endswith(".pt"):
            raise InputError(f"{self.file}: other programs require a name that ends in .pt; choose such a name")
