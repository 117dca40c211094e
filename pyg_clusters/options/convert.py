"""Options of ``pyg-clusters convert``."""

from dataclasses import dataclass, field

from pyg_clusters.errors import InputError
from pyg_clusters.options.common import FrameOptions


@dataclass(kw_only=True)
class ConvertOptions(FrameOptions):
    """Convert frames of any formats and sizes to one HDF5 file, which is read many times faster than text: positions,
    elements, the origin of each frame, and the named labels.
    """

    frames: list[str] = field(metadata={"positional": True})
    """files of frames, then the frame store to write (.h5)"""
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

    def __post_init__(self):
        if len(self.frames) < 2:
            raise InputError(f"convert needs files to read and the file to write, got only {' '.join(self.frames)}")

    @property
    def inputs(self) -> list[str]:
        """Files of frames."""
        return self.frames[:-1]

    @property
    def out(self) -> str:
        """The frame store to write."""
        return self.frames[-1]
