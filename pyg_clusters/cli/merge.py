"""``pyg-clusters merge``."""

from pyg_clusters.formatting import count_of
from pyg_clusters.options.merge import MergeOptions

OPTIONS = MergeOptions
EXAMPLE = "pyg-clusters merge part1.parquet part2.parquet --out predictions.parquet"


def run(options: MergeOptions):
    """Merge the predictions of all parts of a job array."""
    from pyg_clusters.frames.checks import list_bad
    from pyg_clusters.inference.predict import merge

    merged = merge(options)
    list_bad(merged.bad)
    print(f"{count_of(merged.num_frames, 'frame')} in {options.out}")
