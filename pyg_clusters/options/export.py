"""Options of ``pyg-clusters export``."""

from dataclasses import dataclass, field
from typing import Literal

from pyg_clusters.errors import InputError


@dataclass(kw_only=True)
class ExportOptions:
    """Write a model with forces to a file that runs without this package, for molecular dynamics in ASE, LAMMPS, i-PI
    and other programs that read models of metatomic. Needs the extra metatomic.
    """

    model: str = field(metadata={"positional": True})
    """folder of a run or of a saved model, or the name of a pretrained model"""
    file: str = field(metadata={"positional": True})
    """file to write (.pt)"""
    device: Literal["cpu", "cuda"] = "cpu"
    """processor or GPU that the file is for: operations are recorded on it and run on no other"""
    overwrite: bool = False
    """replace an existing file"""

    def __post_init__(self):
        if not self.file.endswith(".pt"):
            raise InputError(f"{self.file}: programs look for a name that ends in .pt; give the file such a name")
