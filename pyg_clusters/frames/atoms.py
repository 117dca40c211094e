"""Frames one by one, with all that their file says of them."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from ase import Atoms

from pyg_clusters.errors import InputError
from pyg_clusters.frames.ase_reader import block_of_frames
from pyg_clusters.frames.block import BadFrame
from pyg_clusters.frames.checks import check_block
from pyg_clusters.frames.join import as_clusters, warn_of_joined
from pyg_clusters.frames.paths import expand_paths
from pyg_clusters.frames.read_options import TruncatedFrame, warn_of_half_frame
from pyg_clusters.frames.reader import frames_of_file
from pyg_clusters.options.common import Fragments


@dataclass(frozen=True)
class AtomsFrame:
    """A frame that can be used."""

    file: str
    """The file, as it was given."""
    number: int
    """Number of the frame in the file, from 0."""
    atoms: Atoms
    """The cluster, not periodic, with its ``info`` and ``arrays``."""


def read_atoms(
    paths: Iterable[str | os.PathLike],
    *,
    problem: Callable[[Atoms], str | None] | None = None,
    on_bad: Literal["stop", "skip"] = "stop",
    fragments: Fragments = "refuse",
) -> Iterator[AtomsFrame | BadFrame]:
    """Reads and checks the frames of files one by one, for work that takes longer than reading.

    Periodic frames are joined over the faces of their cells, see :func:`~pyg_clusters.frames.join.as_clusters`.

    Args:
        paths: Files, folders and patterns, see :func:`~pyg_clusters.frames.expand_paths`.
        problem: What else is wrong with a frame, or nothing.
        on_bad: ``"stop"`` raises at the first frame that cannot be used, ``"skip"`` yields it as bad.
        fragments: Whether a periodic frame that stays in several pieces is bad, or kept with them at their nearest
            images.

    Raises:
        InputError: If a file or, with ``on_bad="stop"``, a frame cannot be used.
    """
    joined = total = 0
    for path in expand_paths(paths):
        number = -1
        for number, frame in enumerate(frames_of_file(path, fragments)):
            if isinstance(frame, TruncatedFrame) and number > 0:
                warn_of_half_frame(frame)
                continue
            bad = frame if isinstance(frame, BadFrame) else None
            if isinstance(frame, Atoms):
                block = as_clusters(block_of_frames(path, {number: frame}), fragments)
                block, found = check_block(block, on_bad=on_bad)
                bad = next(iter(found), None)
                if bad is None:
                    assert block.atoms is not None and block.joined is not None
                    joined, total = joined + int(block.joined.sum()), total + 1
                    frame = block.atoms[0]
                    reason = problem(frame) if problem else None
                    bad = BadFrame(str(path), number, reason) if reason else None
                if bad is None:
                    yield AtomsFrame(str(path), number, frame)
                    continue
            if bad is not None:
                if on_bad == "stop":
                    raise bad.error
                yield bad
        if number < 0:
            raise InputError(f"{path}: no frames in it; give a file with at least one cluster")
    warn_of_joined(joined, total)


def labels_of(atoms: Atoms) -> dict[str, object]:
    """Values per frame and per atom that a frame holds beside its structure."""
    arrays = {name: values for name, values in atoms.arrays.items() if name not in ("numbers", "positions")}
    return atoms.info | arrays | (atoms.calc.results if atoms.calc is not None else {})
