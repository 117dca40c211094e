"""``pyg-clusters convert``."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from jsonargparse import Namespace

from pyg_clusters.errors import InputError
from pyg_clusters.frames import BadFrame, FrameBlock, Frames, check_block, write_store
from pyg_clusters.frames.checks import list_bad
from pyg_clusters.frames.outputs import open_output
from pyg_clusters.options.common import add_fragments_option
from pyg_clusters.options.parsing import parse, verb_parser
from pyg_clusters.progress import counting


def run(argv: Sequence[str]):
    """Puts frames of any formats into one frame store."""
    parser = verb_parser(
        "convert",
        "Frames of any formats and sizes in one HDF5 file, which is read many times faster than text: positions, "
        "elements, where each frame came from, and the labels that are named.",
        "pyg-clusters convert md.extxyz other.traj frames.h5 --properties energy",
    )
    parser.add_argument("files", type=Path, nargs="+", help="files of frames, then the file to write (.h5)")
    parser.add_argument("--properties", type=str, nargs="+", default=[], help="values per frame to store (energy)")
    parser.add_argument("--atom-properties", type=str, nargs="+", default=[], help="values per atom to store (forces)")
    parser.add_argument("--topology", type=Path | None, help="file that says what the atoms are, for DCD, XTC, ...")
    parser.add_argument("--single", action="store_true", help="positions in single precision: half the space")
    parser.add_argument(
        "--uncompressed", action="store_true", help="for training from disk: single frames are read many times faster"
    )
    parser.add_argument(
        "--on-bad", type=Literal["stop", "skip"], default="stop", help="what to do with a frame that cannot be used"
    )
    add_fragments_option(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the file that is there")
    options = parse(parser, argv)
    *inputs, out = options.files
    if not inputs:
        raise InputError(f"convert needs files to read and the file to write, got only {out}")
    with open_output(out, ("convert", *argv), inputs=inputs, overwrite=options.overwrite):
        convert(inputs, out, options)


def convert(inputs: Sequence[Path], out: Path, options: Namespace):
    """Write the frames of files to a store."""
    frames = Frames.open(
        inputs,
        properties=options.properties,
        atom_properties=options.atom_properties,
        on_bad=options.on_bad,
        topology=options.topology,
        fragments=options.fragments,
    )
    bad: list[BadFrame] = []

    def good() -> Iterator[FrameBlock]:
        for block in frames:
            kept, left_out = check_block(block, on_bad=options.on_bad)
            bad.extend(sorted({*left_out, *block.unreadable}, key=lambda frame: frame.number))
            yield kept

    number = write_store(out, counting(good(), len), single=options.single, compressed=not options.uncompressed)
    list_bad(bad)
    print(f"{number} frames in {out}")
