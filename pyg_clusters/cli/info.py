"""``pyg-clusters info``."""

from pyg_clusters.options.info import InfoOptions

OPTIONS = InfoOptions
EXAMPLE = "pyg-clusters info md.extxyz"


def run(options: InfoOptions):
    """Print the contents of files of frames, run folders and models."""
    from pyg_clusters.analysis import info
    from pyg_clusters.frames.checks import list_bad

    for contents in info(options):
        list_bad(contents.bad)
        print(contents.title, *(f"  {key}: {value}" for key, value in contents.values.items()), sep="\n")
