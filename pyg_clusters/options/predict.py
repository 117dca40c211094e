"""Options of ``pyg-clusters predict``."""

from dataclasses import dataclass
from pathlib import Path

from pyg_clusters.errors import InputError
from pyg_clusters.options.common import CoverageOptions, EngineOptions, FrameOptions, ModelOptions

SUFFIXES: tuple[str, ...] = (".csv", ".parquet", ".extxyz")
"""Types of files of predictions."""


@dataclass(kw_only=True)
class PredictOptions(EngineOptions, CoverageOptions, FrameOptions, ModelOptions):
    """Predict the energy of every frame, or the shielding of every atom, into a table, or into a copy of the frames
    with all that they hold (.extxyz). Columns: source_file and source_frame (file and index, from 0, where the frame
    was first read), size (number of atoms), pred_energy (eV), pred_energy_per_atom (eV). A model of shieldings writes
    a row per atom with its index in the frame (from 0) and pred_nmr_shielding (ppm), or an array. An ensemble adds
    pred_energy_spread; --coverage adds pred_energy_low and pred_energy_high (eV), or those of pred_nmr_shielding
    (ppm); pred_flag lists in what respect a frame is outside the training set. The same command resumes a run that was
    stopped; --engine ray spreads the work over the machines of a Ray cluster, or over the cores of this one.
    """

    topology: str | None = None
    """file with the elements of the atoms, for formats with positions only (DCD, XTC, ...)"""
    shard: str | None = None
    """i/n: predict part i of n of the frames only; merge joins the parts"""
    overwrite: bool = False
    """replace an existing file, and start again rather than resume"""
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
