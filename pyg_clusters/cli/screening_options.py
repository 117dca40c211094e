"""Options of ``pyg-clusters screen``."""

import math
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from pyg_clusters.cli.options import add_frame_options
from pyg_clusters.errors import InputError
from pyg_clusters.frames.folders import VACUUM
from pyg_clusters.inference.uniqueness import SAME_STRUCTURE

BINS = 100
"""Default number of bins, the paper's."""
POOLS = {"unique": 10, "diverse": 3}
"""Among how many times as many of the lowest frames as are wanted the distinct or diverse ones are sought."""
BINNED = ("bins", "descriptor-bins")
WAYS = {
    "rank": "the lowest predicted energies",
    "bins": "the lowest frames of equal-width bins of predicted energy",
    "descriptor-bins": "the lowest frames of the cells of a grid over the mean descriptor, for comparison",
    "unique": "the lowest predicted energies of distinct structures",
    "diverse": "the frames of low predicted energy that differ most from each other to the model",
}


def add_screening_options(parser: ArgumentParser):
    """Adds everything that ``screen`` can be told."""
    add_frame_options(parser)
    parser.add_argument(
        "--choose",
        type=Literal["rank", "bins", "descriptor-bins", "unique", "diverse"],
        default="rank",
        help="; ".join(f"{way}: {what}" for way, what in WAYS.items()),
    )
    parser.add_argument("--top", type=int, default=100, help="candidates per cluster size, at most (not of bins)")
    parser.add_argument("--bins", type=int | None, help=f"number of bins per cluster size, {BINS} if not given")
    parser.add_argument(
        "--tolerance",
        type=float | None,
        help="for unique: structures are copies if their atoms can be brought this near each other (root mean square "
        f"in Å), {SAME_STRUCTURE} if not given",
    )
    parser.add_argument(
        "--pool",
        type=int | None,
        help="for unique and diverse: lowest frames of a size to choose among, 10 and 3 times --top if not given",
    )
    parser.add_argument("--truth", type=str | None, help="name of the true energy (eV) in the frames, for the report")
    parser.add_argument(
        "--write",
        type=str | None,
        help="write each candidate to a folder of its own, too, in this format of ASE (vasp: POSCAR, aims, xyz, ...)",
    )
    parser.add_argument(
        "--vacuum", type=float, default=VACUUM, help="Å between a candidate and its box in these; 0: no box"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the results that are in the folder")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")


def check_screening_options(options: Namespace):
    """Checks that the options are sensible and go together.

    Raises:
        InputError: Naming the one that is not.
    """
    for name, ways in {"bins": BINNED, "tolerance": ("unique",), "pool": ("unique", "diverse")}.items():
        if getattr(options, name) is not None and options.choose not in ways:
            raise InputError(f"--{name} goes with --choose {' or '.join(ways)}, not with {options.choose}")
    for name in ("top", "bins", "pool"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} must be at least 1, got {value}")
    if options.tolerance is not None and not (math.isfinite(options.tolerance) and options.tolerance > 0):
        raise InputError(f"--tolerance must be positive (in Å), got {options.tolerance:g}")
    if not (math.isfinite(options.vacuum) and options.vacuum >= 0):
        raise InputError(f"--vacuum must be a length in Å, or 0 for no box, got {options.vacuum:g}")
