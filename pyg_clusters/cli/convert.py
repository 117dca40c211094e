"""``pyg-clusters convert``."""

from pyg_clusters.formatting import count_of
from pyg_clusters.options.convert import ConvertOptions

OPTIONS = ConvertOptions
EXAMPLE = "pyg-clusters convert md.extxyz other.traj --out frames.h5 --properties energy"


def run(options: ConvertOptions):
    """Convert frames of any formats to one frame store."""
    from pyg_clusters.frames import convert
    from pyg_clusters.frames.checks import list_bad

    converted = convert(options)
    list_bad(converted.bad)
    print(f"{count_of(converted.num_frames, 'frame')} in {options.out}")
