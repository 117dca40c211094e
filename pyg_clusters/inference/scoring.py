"""Predictions for the frames of files."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Literal

import numpy as np

from pyg_clusters.frames import BadFrame, FrameBlock, check_block, read_blocks
from pyg_clusters.inference.predictor import Predictor


@dataclass
class ScoredBlock:
    """A block of frames and what a model says of them.

    Attributes:
        frames: The frames that could be used.
        energy: Their predicted energies in eV, ``[num_frames]``.
        bad: The frames of this stretch of the file that were left out.
    """

    frames: FrameBlock
    energy: np.ndarray
    bad: list[BadFrame]


def score_files(
    predictor: Predictor,
    paths: Iterable[str | PathLike],
    *,
    properties: Sequence[str] = (),
    on_bad: Literal["stop", "skip"] = "stop",
    ignore_cell: bool = False,
) -> Iterator[ScoredBlock]:
    """Reads frames, checks them against what the model knows, and predicts their energies, block by block.

    Args:
        predictor: Of the model.
        paths: Files of frames, in any format that ASE reads.
        properties: Values per frame to read along.
        on_bad: Stop at a frame that cannot be used, or leave it out.
        ignore_cell: Take frames with a periodic cell as isolated clusters.

    Raises:
        InputError: If a file or, with ``on_bad="stop"``, a frame cannot be used.
    """
    domain = getattr(predictor.model, "domain", None)
    known = domain is not None and domain.known
    for block in read_blocks(paths, properties=properties, on_bad=on_bad):
        frames, bad = check_block(
            block,
            atomic_numbers=domain.atomic_numbers if known else None,
            size_range=domain.size_range if known else None,
            on_bad=on_bad,
            ignore_cell=ignore_cell,
        )
        bad = sorted({*bad, *block.unreadable}, key=lambda frame: frame.number)
        yield ScoredBlock(frames, predictor(frames.z, frames.pos, frames.ptr).energy.numpy(), bad)
