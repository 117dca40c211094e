"""Options that several verbs have."""

from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from pyg_clusters.errors import InputError
from pyg_clusters.frames.wanted import Fragments


def add_frame_options(parser: ArgumentParser):
    """Adds the model, the files of frames, and how to read and score them."""
    parser.add_argument("model", type=Path, help="folder of a run, or of a saved model")
    parser.add_argument(
        "frames", type=str, nargs="+", help="files of frames: whatever ASE reads, .xz and .gz too; frame stores (.h5)"
    )
    add_reading_options(parser)


def add_reading_options(parser: ArgumentParser):
    """Adds what to do with bad frames, and where to compute."""
    add_check_options(parser)
    parser.add_argument("--device", type=str | None, help="cpu, cuda, cuda:1, ...; by default CUDA where there is one")


def add_check_options(parser: ArgumentParser):
    """Adds what to do with bad frames."""
    parser.add_argument(
        "--on-bad", type=Literal["stop", "skip"], default="stop", help="what to do with a frame that cannot be used"
    )
    add_fragments_option(parser)


def add_fragments_option(parser: ArgumentParser):
    """Adds what to do with frames in periodic cells that are no single clusters."""
    parser.add_argument(
        "--fragments",
        type=Fragments,
        default="refuse",
        help="a frame in a periodic cell is joined over its faces; if it stays in several pieces: refuse it, or keep "
        "them at their nearest images",
    )


def add_engine_options(parser: ArgumentParser):
    """Adds on what machines to compute."""
    parser.add_argument(
        "--engine",
        type=Literal["local", "ray"],
        default="local",
        help="local: in this process; ray: spread over workers, a model on each (extra ray)",
    )
    parser.add_argument(
        "--address",
        type=str | None,
        help="of the Ray cluster, host:port or auto; by default RAY_ADDRESS, or else the cores of this machine",
    )


def check_engine_options(options: Namespace):
    """Checks the options that :func:`add_engine_options` added.

    Raises:
        InputError: If there is an address, but not for Ray.
    """
    if options.address is not None and options.engine != "ray":
        raise InputError(f"--address {options.address} is that of a Ray cluster; add --engine ray")
