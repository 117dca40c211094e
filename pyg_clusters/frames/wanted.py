"""What is to be read of the frames of files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pyg_clusters.frames.block import BadFrame

Keep = Callable[[int], bool]
"""Whether a block of a file is to be read, by its number; the others are passed over."""


@dataclass(frozen=True)
class Wanted:
    """What is to be read of each frame.

    Attributes:
        properties: Names of values per frame.
        atom_properties: Names of values per atom.
        with_atoms: Whether each frame is wanted as ASE has it, too.
        block_size: Number of frames in a block.
        topology: File whose first frame says what the atoms are, for formats that hold positions only.
    """

    properties: tuple[str, ...] = ()
    atom_properties: tuple[str, ...] = ()
    with_atoms: bool = False
    block_size: int = 1000
    topology: Path | None = None


class LastFrame(BadFrame):
    """A bad frame after which no other can be found."""


class HalfFrame(LastFrame):
    """The last frame of a text that ends within it: the program that writes it may be at work still."""


def cut_frame(kind: type[LastFrame], path: Path, number: int) -> LastFrame:
    """A frame within which the file ends."""
    whole = "1 whole frame" if number == 1 else f"{number} whole frames"
    return kind(str(path), number, f"the file ends within this frame, after {whole}; cut or copy it anew")
