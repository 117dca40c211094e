"""What is to be read of the frames of files."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pyg_clusters.frames.block import BadFrame
from pyg_clusters.options.common import Fragments

Keep = Callable[[int], bool]
"""Whether a block of a file is to be read, by its number; the others are passed over."""


@dataclass(frozen=True)
class ReadOptions:
    """What is to be read of each frame.

    Attributes:
        properties: Names of values per frame.
        atom_properties: Names of values per atom.
        with_atoms: Whether each frame is wanted as ASE has it, too.
        block_size: Number of frames in a block.
        topology: File whose first frame says what the atoms are, for formats that hold positions only.
        fragments: What to do with a periodic frame that stays in several pieces.
        length: Unit of the positions and cells in Å.
    """

    properties: tuple[str, ...] = ()
    atom_properties: tuple[str, ...] = ()
    with_atoms: bool = False
    block_size: int = 1000
    topology: Path | None = None
    fragments: Fragments = "refuse"
    length: float = 1.0


class UnrecoverableFrame(BadFrame):
    """A bad frame after which no other can be found."""


class TruncatedFrame(UnrecoverableFrame):
    """The last frame of a text that ends within it: the program that writes it may be at work still."""


def cut_frame(kind: type[UnrecoverableFrame], path: Path, number: int) -> UnrecoverableFrame:
    """A frame within which the file ends."""
    whole = "1 whole frame" if number == 1 else f"{number} whole frames"
    return kind(str(path), number, f"the file ends within this frame, after {whole}; copy it again, or remove the rest")


def warn_of_half_frame(frame: TruncatedFrame):
    """Warns that the last frame of a file is left out."""
    warnings.warn(
        f"{frame.file}: the file ends within frame {frame.number}, which may still be being written; "
        "the whole frames before it are taken",
        stacklevel=3,
    )
