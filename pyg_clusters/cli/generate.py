"""``pyg-clusters generate``."""

from pyg_clusters.cli.commands import Command
from pyg_clusters.options.generate import HotOptions, QuenchOptions, SbldaOptions


def run_sblda(options: SbldaOptions):
    """Generate random clusters."""
    from pyg_clusters.structures.generate import generate_sblda

    print(f"{generate_sblda(options)} clusters of {options.element} in {options.out}")


def run_quench(options: QuenchOptions):
    """Search distinct local minima."""
    from pyg_clusters.structures.generate import generate_quench

    minima = generate_quench(options)
    few = f"; no more new ones were found, of {options.count} wanted" if minima.count < options.count else ""
    print(f"{minima.count} minima of {minima.compositions} compositions in {options.out}{few}")


def run_hot(options: HotOptions):
    """Generate frames of molecular dynamics with forces."""
    from pyg_clusters.structures.generate import generate_hot

    print(f"{generate_hot(options)} frames with forces in {options.out}")


KIND = "algorithm"
COMMANDS = {
    "sblda": Command(
        SbldaOptions,
        "pyg-clusters generate sblda --element Na --sizes 14:30:2,40 --count 200 --seed 0 --out na.extxyz",
        run_sblda,
        "random clusters with given distances to the two nearest neighbours",
    ),
    "quench": Command(
        QuenchOptions,
        "pyg-clusters generate quench --elements Cu Au --sizes 20:60 --calculator emt --out cuau.extxyz",
        run_quench,
        "distinct local minima of a potential, also of alloys",
    ),
    "hot": Command(
        HotOptions,
        "pyg-clusters generate hot cuau.extxyz --calculator emt --count 1000 --out cuau_hot.extxyz",
        run_hot,
        "frames of molecular dynamics from given clusters, with forces",
    ),
}
