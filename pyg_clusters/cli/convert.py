"""``pyg-clusters convert``."""

from collections.abc import Sequence

from pyg_clusters.options.convert import ConvertOptions
from pyg_clusters.options.parsing import parse_options

EXAMPLE = "pyg-clusters convert md.extxyz other.traj frames.h5 --properties energy"


def run(argv: Sequence[str]):
    """Convert frames of any formats to one frame store."""
    options = parse_options("convert", ConvertOptions, EXAMPLE, argv)
    from pyg_clusters.frames import convert
    from pyg_clusters.frames.checks import list_bad

    converted = convert(options)
    list_bad(converted.bad)
    print(f"{converted.num_frames} frames in {options.out}")
