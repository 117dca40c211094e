"""``pyg-clusters screen``."""

import os
from collections.abc import Sequence
from pathlib import Path

from pyg_clusters.options.parsing import parse_options
from pyg_clusters.options.screen import ScreenOptions

EXAMPLE = "pyg-clusters screen runs/dart md.extxyz --top 100 --out screening"


def run(argv: Sequence[str]):
    """Select candidates of each cluster size, and print the names of the results."""
    options = parse_options("screen", ScreenOptions, EXAMPLE, argv)
    from pyg_clusters.screening.screen import RESULTS, screen

    screening = screen(options)
    print(f"{len(screening.candidates)} candidates of {len(screening.energy)} frames in {options.out}:")
    for name in RESULTS:
        print(f"  {Path(options.out) / name}")
    if options.write:
        print(f"  {Path(options.out) / options.write}{os.sep} (a folder each)")
