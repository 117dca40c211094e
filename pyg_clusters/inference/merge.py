"""Merging of the predictions of a job array."""

from pathlib import Path

from pyg_clusters.frames.outputs import open_output
from pyg_clusters.inference.shards import Merged, merge_shards
from pyg_clusters.options.merge import MergeOptions
from pyg_clusters.options.parsing import command_words


def merge(options: MergeOptions) -> Merged:
    """Merge the predictions of all parts of a job array into one file.

    Returns:
        Counts of the frames in it, and the frames that no part could use.

    Raises:
        InputError: If a part is missing, doubled or corrupted, or the file exists already.
    """
    command = command_words("merge", options)
    with open_output(Path(options.out), command, inputs=options.parts, overwrite=options.overwrite):
        return merge_shards([Path(part) for part in options.parts], Path(options.out))
