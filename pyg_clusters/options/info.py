"""Options of ``pyg-clusters info``."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(kw_only=True)
class InfoOptions:
    """Print the contents of files of frames (sizes, elements, labels), of run folders and of saved models."""

    paths: list[str] = field(metadata={"positional": True})
    """files or folders of frames, run folders, folders or names of models"""
    on_bad: Literal["stop", "skip"] = "stop"
    """frames that cannot be used: stop at the first, or skip and list them"""
