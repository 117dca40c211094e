"""Options of ``pyg-clusters screen``."""

import math
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from pyg_clusters.errors import InputError
from pyg_clusters.options.common import add_engine_options, add_frame_options, check_engine_options
from pyg_clusters.screening.dft_inputs import VACUUM
from pyg_clusters.structures.duplicates import SAME_STRUCTURE

BINS = 100
"""Default number of bins, the paper's."""
POOLS = {"unique": 10, "diverse": 3}
"""Among how many times as many of the lowest frames as are wanted the distinct or diverse ones are sought."""
RELAXED_POOL = 10
"""How many times as many of the lowest frames as are wanted are relaxed."""
SPREAD_WEIGHT = 2.0
"""Default weight of the spread."""
FMAX, STEPS = 0.01, 1000
"""Defaults of a relaxation: largest force on an atom in the end in eV/Å, most evaluations of the forces."""
BINNED = ("bins", "descriptor-bins")
WAYS = {
    "rank": "the lowest predicted energies",
    "bins": "the lowest frames of equal-width bins of predicted energy",
    "descriptor-bins": "the lowest frames of the cells of a grid over the mean descriptor, for comparison",
    "unique": "the lowest predicted energies of distinct structures",
    "diverse": "the frames of low predicted energy that differ most from each other to the model",
    "uncertain": "the lowest predicted energies less a multiple of their spread, of an ensemble: what to label next",
}


def add_screening_options(parser: ArgumentParser):
    """Adds everything that ``screen`` can be told."""
    add_frame_options(parser)
    parser.add_argument(
        "--choose",
        type=Literal["rank", "bins", "descriptor-bins", "unique", "diverse", "uncertain"],
        default="rank",
        help="; ".join(f"{way}: {what}" for way, what in WAYS.items()),
    )
    parser.add_argument(
        "--top",
        type=int,
        default=100,
        help="candidates per cluster size or composition, at most (not of bins)",
    )
    parser.add_argument(
        "--bins", type=int | None, help=f"number of bins per cluster size or composition, {BINS} if not given"
    )
    parser.add_argument(
        "--tolerance",
        type=float | None,
        help="for unique: structures are copies if their atoms can be brought this near each other (root mean square "
        f"in Å), {SAME_STRUCTURE} if not given",
    )
    parser.add_argument(
        "--pool",
        type=int | None,
        help="for unique and diverse, and with --relax: lowest frames of a size to choose among, 10 times --top if not "
        "given (for diverse without --relax 3 times)",
    )
    parser.add_argument(
        "--spread-weight",
        type=float | None,
        help=f"for uncertain: how many times the spread is taken from the energy, {SPREAD_WEIGHT:g} if not given",
    )
    parser.add_argument(
        "--relax",
        action="store_true",
        help="relax the frames of the pool with the forces of the model, and choose among what they relax to",
    )
    parser.add_argument(
        "--fmax", type=float | None, help=f"for --relax: largest force on an atom in the end, {FMAX} eV/Å if not given"
    )
    parser.add_argument(
        "--steps", type=int | None, help=f"for --relax: most evaluations of the forces of a frame, {STEPS} if not given"
    )
    add_engine_options(parser)
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
    check_engine_options(options)
    ways = {"bins": BINNED, "tolerance": ("unique",), "spread_weight": ("uncertain",)}
    if not options.relax:
        ways["pool"] = ("unique", "diverse")
    for name, fitting in ways.items():
        if getattr(options, name) is not None and options.choose not in fitting:
            option = name.replace("_", "-")
            more = ", or with --relax" if name == "pool" else ""
            raise InputError(f"--{option} goes with --choose {' or '.join(fitting)}{more}, not with {options.choose}")
    if options.relax and options.choose in BINNED:
        raise InputError(f"--relax goes with --choose rank, unique, diverse or uncertain, not with {options.choose}")
    for name in ("fmax", "steps"):
        if getattr(options, name) is not None and not options.relax:
            raise InputError(f"--{name} goes with --relax")
    for name in ("top", "bins", "pool", "steps"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} must be at least 1, got {value}")
    if options.fmax is not None and not (math.isfinite(options.fmax) and options.fmax > 0):
        raise InputError(f"--fmax must be a positive force in eV/Å, got {options.fmax:g}")
    if options.spread_weight is not None and not (math.isfinite(options.spread_weight) and options.spread_weight >= 0):
        raise InputError(f"--spread-weight must be 0 or more, got {options.spread_weight:g}")
    if options.tolerance is not None and not (math.isfinite(options.tolerance) and options.tolerance > 0):
        raise InputError(f"--tolerance must be positive (in Å), got {options.tolerance:g}")
    if not (math.isfinite(options.vacuum) and options.vacuum >= 0):
        raise InputError(f"--vacuum must be a length in Å, or 0 for no box, got {options.vacuum:g}")
