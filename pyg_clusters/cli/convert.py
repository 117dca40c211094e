"""``pyg-clusters convert``."""

from pyg_clusters.options.convert import ConvertOptions

OPTIONS = ConvertOptions
EXAMPLE = "pyg-clusters convert md.extxyz other.traj --out frames.h5 --properties energy"


def run(options: ConvertOptions):
    """Convert frames of any formats to one frame store."""
    from pyg_clusters.frames import convert
    from pyg_clusters.frames.checks import list_bad

    converted = convert(options)
    list_bad(converted.bad)
    print(f"{converted.num_frames} frames in {options.out}")
