"""``pyg-clusters info``."""

from collections.abc import Sequence

from pyg_clusters.options.info import InfoOptions
from pyg_clusters.options.parsing import parse_options


def run(argv: Sequence[str]):
    """Print the contents of files of frames, run folders and models."""
    options = parse_options("info", InfoOptions, "pyg-clusters info md.extxyz", argv)
    from pyg_clusters.analysis import info
    from pyg_clusters.frames.checks import list_bad

    for contents in info(options):
        list_bad(contents.bad)
        print(contents.title, *(f"  {key}: {value}" for key, value in contents.values.items()), sep="\n")
