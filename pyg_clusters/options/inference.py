"""Options of the verbs for predictions of trained models."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pyg_clusters.errors import InputError
from pyg_clusters.options import (
    CoverageOptions,
    DeviceOptions,
    EngineOptions,
    FrameOptions,
    ModelOptions,
    OverwriteOptions,
    verb,
)

SUFFIXES: tuple[str, ...] = (".csv", ".parquet", ".extxyz")
"""Types of files of predictions."""


@verb(
    "predict",
    "pyg_clusters.inference.predict.predict",
    "predict energies of frames, or shieldings of their atoms",
    "gallium-forces md.extxyz --out predictions.csv",
)
@dataclass(kw_only=True)
class PredictOptions(OverwriteOptions, EngineOptions, CoverageOptions, FrameOptions, ModelOptions):
    """Predict the energy of every frame, or the shielding of every atom, and write a table, or a copy of the frames
    with all their properties (.extxyz). Columns: source_file and source_frame (file and index, from 0, where the frame
    was first read), size (number of atoms), pred_energy (eV), pred_energy_per_atom (eV). A model of shieldings writes a
    row per atom with its index in the frame (from 0) and pred_nmr_shielding (ppm), or an array. An ensemble adds
    pred_energy_spread; --coverage adds pred_energy_low and pred_energy_high (eV), or those of pred_nmr_shielding (ppm);
    pred_flag lists in what respect a frame is outside the training set. Repeating the command resumes a stopped run;
    --engine ray distributes the work over the machines of a Ray cluster, or over the cores of this one.
    """

    topology: str | None = None
    """file with the elements of the atoms, for formats with positions only (DCD, XTC, ...)"""
    shard: str | None = None
    """i/n: predict only part i of n of the frames, for job arrays"""
    out: str
    """predictions.csv, .parquet or .extxyz"""

    def __post_init__(self):
        EngineOptions.__post_init__(self)
        CoverageOptions.__post_init__(self)
        check_suffix(self.out)


def check_suffix(out: str):
    """Check that predictions can be written to a file of this type.

    Raises:
        InputError: If they cannot.
    """
    suffix = Path(out).suffix
    if suffix not in SUFFIXES:
        raise InputError(f"{out}: cannot write {suffix!r}; use one of {', '.join(SUFFIXES)}")


@verb(
    "spectrum",
    "pyg_clusters.analysis.spectrum",
    "compute NMR spectra from predicted shieldings",
    "sodium clusters.extxyz --width 10 --out spectrum",
)
@dataclass(kw_only=True)
class SpectrumOptions(OverwriteOptions, DeviceOptions, FrameOptions, ModelOptions):
    """Compute NMR spectra from predicted shieldings: broadened shifts (reference minus shielding) for each cluster
    size; also Boltzmann-weighted if the isomers have energies, and compared with DFT shieldings if present. Writes
    spectrum.csv, spectrum.json and spectrum.png.
    """

    reference: float | None = None
    """shielding of the standard in ppm; for sodium that of hydrated Na+ by default"""
    width: float = 10.0
    """full width of a line at half maximum in ppm"""
    shape: Literal["gaussian", "lorentzian", "voigt"] = "gaussian"
    """line shape; voigt combines both with equal widths"""
    by: Literal["size", "all"] = "size"
    """one spectrum per cluster size, or one of all clusters"""
    temperature: float = 300.0
    """temperature in K, if the frames have energies"""
    energy: str | None = None
    """key of the energy (eV) in the frames; energy by default"""
    target: str | None = None
    """key of the DFT shielding (ppm) of each atom; nmr_shielding by default"""
    out: str
    """folder of the results"""


@verb(
    "export",
    "pyg_clusters.inference.export.export",
    "write a model to a file for LAMMPS, i-PI, ASE and other programs",
    "gallium-forces gallium.pt",
)
@dataclass(kw_only=True)
class ExportOptions(OverwriteOptions):
    """Write a model with forces to a file that runs without this package, for molecular dynamics in ASE, LAMMPS, i-PI
    and other programs that read models of metatomic. Needs the extra metatomic.
    """

    model: str = field(metadata={"positional": True})
    """folder of a run or of a saved model, or the name of a pretrained model"""
    file: str = field(metadata={"positional": True})
    """file to write (.pt)"""
    device: Literal["cpu", "cuda"] = "cpu"
    """processor or GPU that the file is for: it runs on no other device"""

    def __post_init__(self):
        if not self.file.endswith(".pt"):
            raise InputError(f"{self.file}: other programs require a name that ends in .pt; rename the file")
