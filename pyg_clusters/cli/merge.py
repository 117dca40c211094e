"""``pyg-clusters merge``."""

from collections.abc import Sequence

from pyg_clusters.options.merge import MergeOptions
from pyg_clusters.options.parsing import parse_options

EXAMPLE = "pyg-clusters merge part1.parquet part2.parquet --out predictions.parquet"


def run(argv: Sequence[str]):
    """Merge the predictions of all parts of a job array."""
    options = parse_options("merge", MergeOptions, EXAMPLE, argv)
    from pyg_clusters.frames.checks import list_bad
    from pyg_clusters.inference.merge import merge

    merged = merge(options)
    list_bad(merged.bad)
    print(f"{merged.num_frames} frames in {options.out}")
