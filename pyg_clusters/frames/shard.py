"""One of several equal parts of the frames, for work that is spread over machines."""

from dataclasses import dataclass

from pyg_clusters.errors import InputError


@dataclass(frozen=True)
class Shard:
    """Part ``number`` (from 1) of ``count``: every ``count``-th block of frames.

    Blocks are dealt out in turn, file by file with the first block of each file one further on, so that neither the
    number of frames has to be known nor many small files fall to one part.
    """

    number: int
    count: int

    def __post_init__(self):
        if not 1 <= self.number <= self.count:
            raise InputError(f"--shard {self}: there are the parts 1/{self.count} to {self.count}/{self.count}")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """A part from ``3/8``.

        Raises:
            InputError: If it is none.
        """
        number, _, count = text.partition("/")
        if not (number.isdigit() and count.isdigit() and int(count)):
            raise InputError(f"--shard: {text!r} is not a part such as 3/8, the third of eight")
        return cls(int(number), int(count))

    def has(self, file_number: int, block_number: int) -> bool:
        """Whether a block of a file belongs to the part."""
        return (file_number + block_number) % self.count == self.number - 1
