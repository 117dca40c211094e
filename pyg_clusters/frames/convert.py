"""Conversion of frames of any formats to a frame store."""

from collections.abc import Iterator
from pathlib import Path

from pyg_clusters.frames.block import BadFrame, FrameBlock
from pyg_clusters.frames.checks import check_block
from pyg_clusters.frames.reader import Frames
from pyg_clusters.frames.store import write_store
from pyg_clusters.frames.writing import WrittenFrames, open_output
from pyg_clusters.options.frames import ConvertOptions
from pyg_clusters.options.parsing import command_words
from pyg_clusters.progress import counting


def convert(options: ConvertOptions) -> WrittenFrames:
    """Convert frames of any formats to one frame store.

    Raises:
        InputError: If a file or, with ``on_bad="stop"``, a frame cannot be used, or the store exists already.
    """
    out, bad = Path(options.out), list[BadFrame]()

    def good(blocks: Frames) -> Iterator[FrameBlock]:
        for block in blocks:
            checked, rejected = check_block(block, on_bad=options.on_bad)
            bad.extend(rejected)
            yield checked

    command = command_words("convert", options)
    with open_output(out, command, inputs=options.frames, overwrite=options.overwrite):
        frames = Frames.open(
            options.frames,
            properties=options.properties,
            atom_properties=options.atom_properties,
            on_bad=options.on_bad,
            topology=options.topology,
            fragments=options.fragments,
        )
        blocks = counting(good(frames), len)
        count = write_store(out, blocks, single=options.single, compressed=not options.uncompressed)
    return WrittenFrames(count, options.out, bad)
