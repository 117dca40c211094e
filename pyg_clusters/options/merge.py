"""Options of ``pyg-clusters merge``."""

from dataclasses import dataclass, field


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
