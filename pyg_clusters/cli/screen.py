"""``pyg-clusters screen``."""

import os
from pathlib import Path

from pyg_clusters.options.screen import ScreenOptions

OPTIONS = ScreenOptions
EXAMPLE = "pyg-clusters screen runs/dart md.extxyz --top 100 --out screening"


def run(options: ScreenOptions):
    """Select candidates of each cluster size, and print the names of the results."""
    from pyg_clusters.screening.screen import RESULTS, screen

    screening = screen(options)
    print(f"{len(screening.candidates)} candidates of {len(screening.energy)} frames in {options.out}:")
    for name in RESULTS:
        print(f"  {Path(options.out) / name}")
    if options.write:
        print(f"  {Path(options.out) / options.write}{os.sep} (a folder each)")
