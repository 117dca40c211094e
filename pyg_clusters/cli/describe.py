"""``pyg-clusters describe``."""

import math
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from pyg_clusters.analysis.description import describe
from pyg_clusters.analysis.description_report import summary_lines, write_results
from pyg_clusters.datasets.frame_sets import SHIPPED_TARGETS, parse_radii, read_set
from pyg_clusters.errors import InputError
from pyg_clusters.frames.checks import list_bad
from pyg_clusters.frames.outputs import open_output
from pyg_clusters.options.common import add_check_options
from pyg_clusters.options.parsing import parse, verb_parser

MIN_BIN_WIDTH: float = 1e-4
"""Narrowest bin of g(r) in Å: narrower ones hold next to no pair and fill the memory."""


def run(argv: Sequence[str]):
    """Prints what the descriptor sees of a set of clusters, and writes tables, figures and a report."""
    parser = verb_parser(
        "describe",
        "What the topological descriptor sees of a set of clusters: pair-distance distribution g(r), shell radii "
        "suggested from its minima, mean counts per shell, and how many distinct isomers share all of their counts. "
        "With --out: summary.json, tables (.csv), figures and report.html.",
        "pyg-clusters describe gallium --out description",
    )
    parser.add_argument("frames", type=str, nargs="+", help="files of frames; or gallium, sodium, copper_gold")
    parser.add_argument("--target", type=str | None, help="name of the energy (eV) in the frames, for the collisions")
    parser.add_argument(
        "--radii",
        type=str | None,
        help="shell radii in Å, as in 3.49,6.3; by default DART's for gallium, for others those suggested from g(r)",
    )
    parser.add_argument("--r-max", type=float | None, help="largest distance of g(r) in Å; by default all are counted")
    parser.add_argument("--bin-width", type=float, default=0.05, help="width of a bin of g(r) in Å")
    add_check_options(parser)
    parser.add_argument("--out", type=Path | None, help="folder of the results; without it they are printed only")
    options = parse(parser, argv)
    radii = None if options.radii is None else parse_radii(options.radii)
    for name in ("r_max", "bin_width"):
        value = getattr(options, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"--{name.replace('_', '-')} must be positive (in Å), got {value:g}")
    if options.bin_width < MIN_BIN_WIDTH:
        raise InputError(f"--bin-width must be at least {MIN_BIN_WIDTH} Å, got {options.bin_width:g}")
    with open_output(options.out, ("describe", *argv), results=()):
        describe_frames(options, radii)


def describe_frames(options: Namespace, radii: tuple[float, ...] | None):
    """Print the description of frames, and write it if asked to.

    Args:
        options: Of the command line.
        radii: Shell radii in Å, if they were given.
    """
    target = options.target or (SHIPPED_TARGETS.get(options.frames[0]) if len(options.frames) == 1 else None)
    frames = read_set(
        options.frames,
        properties=[target] if target else [],
        on_bad=options.on_bad,
        fragments=options.fragments,
    )
    list_bad(frames.bad)
    description = describe(frames, radii, target, options.r_max, options.bin_width)
    print("\n".join(summary_lines(description)))
    if options.out is not None:
        write_results(description, options.out, options.frames)
        print(f"tables, figures and report in {options.out}")
