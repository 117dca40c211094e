"""Options of ``pyg-clusters merge``."""

from dataclasses import dataclass, field

from pyg_clusters.options.predict import check_suffix


@dataclass(kw_only=True)
class MergeOptions:
    """Merge the predictions of all parts that predict --shard wrote, in the order of the input, into the file that one
    run would have written.
    """

    parts: list[str] = field(metadata={"positional": True})
    """outputs of predict --shard, in any order"""
    out: str
    """file to write, of the same type as the parts"""
    overwrite: bool = False
    """replace an existing file"""

    def __post_init__(self):
        check_suffix(self.out)
