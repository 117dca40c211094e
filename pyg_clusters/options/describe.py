"""Options of ``pyg-clusters describe``."""

from dataclasses import dataclass, field

from pyg_clusters.errors import InputError
from pyg_clusters.options.common import EnergyUnitOptions, FrameOptions, check_positive

MIN_BIN_WIDTH: float = 1e-4
"""Smallest bin width of g(r) in Å: narrower bins hold almost no pairs and fill the memory."""


@dataclass(kw_only=True)
class DescribeOptions(EnergyUnitOptions, FrameOptions):
    """Describe a set of clusters by the topological descriptor: pair-distance distribution g(r), shell radii suggested
    from its minima, mean counts per shell, and the number of distinct isomers with identical counts. With --out:
    summary.json, tables (.csv), figures and report.html.
    """

    frames: list[str] = field(metadata={"positional": True})
    """files of frames; or gallium, sodium, copper_gold for the shipped data"""
    target: str | None = None
    """key of the energy in the frames, for the collisions"""
    radii: str | None = None
    """shell radii in Å, for example 3.49,6.3; by default DART's for gallium, for others those suggested from g(r)"""
    r_max: float | None = None
    """largest distance of g(r) in Å; by default all distances are counted"""
    bin_width: float = 0.05
    """bin width of g(r) in Å"""
    overwrite: bool = False
    """replace results in the folder"""
    out: str | None = None
    """folder of the results; without it they are only printed"""

    def __post_init__(self):
        check_positive(self, "r_max", "bin_width", unit="Å")
        if self.bin_width < MIN_BIN_WIDTH:
            raise InputError(f"--bin-width must be at least {MIN_BIN_WIDTH} Å, got {self.bin_width:g}")
