"""``pyg-clusters screen``."""

import os
from pathlib import Path

from pyg_clusters.formatting import count_of
from pyg_clusters.options.screen import ScreenOptions

OPTIONS = ScreenOptions
EXAMPLE = "pyg-clusters screen gallium-forces md.extxyz --relax --out candidates"


def run(options: ScreenOptions):
    """Select candidates of each cluster size, and print the names of the results."""
    from pyg_clusters.inference.flags import text_of_flags
    from pyg_clusters.screening.screen import RESULTS, screen

    screening = screen(options)
    num_frames = len(screening.energy)
    print(f"{count_of(len(screening.candidates), 'candidate')} of {count_of(num_frames, 'frame')} in {options.out}:")
    for name in RESULTS:
        print(f"  {Path(options.out) / name}")
    if options.write:
        print(f"  {Path(options.out) / options.write}{os.sep} (a folder each)")
    if screening.flagged is not None and screening.flagged.any():
        print(f"{text_of_flags(int(screening.flagged.sum()), num_frames)}: their energies are less certain")
