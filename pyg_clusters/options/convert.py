"""Options of ``pyg-clusters convert``."""

from dataclasses import dataclass, field

from pyg_clusters.options.common import FrameOptions


@dataclass(kw_only=True)
class ConvertOptions(FrameOptions):
    """Convert frames of any formats and sizes to one HDF5 file, which is read many times faster than text: positions,
    elements, the origin of each frame, and the named labels.
    """

    properties: list[str] = field(default_factory=list)
    """values per frame to store (energy)"""
    atom_properties: list[str] = field(default_factory=list)
    """values per atom to store (forces)"""
    topology: str | None = None
    """file with the elements of the atoms, for formats with positions only (DCD, XTC, ...)"""
    single: bool = False
    """store positions in single precision: half the space"""
    uncompressed: bool = False
    """for training from disk: single frames are read many times faster"""
    overwrite: bool = False
    """replace an existing file"""
    out: str
    """frame store to write (.h5)"""
