"""``pyg-clusters generate``."""

from collections.abc import Sequence

from pyg_clusters.cli.subcommands import Part, run_part
from pyg_clusters.options.generate import QuenchOptions, SbldaOptions
from pyg_clusters.options.parsing import parse_options

SBLDA_EXAMPLE = "pyg-clusters generate sblda --element Na --sizes 14:30:2,40 --count 200 --seed 0 --out na.extxyz"
QUENCH_EXAMPLE = "pyg-clusters generate quench --elements Cu Au --sizes 20:60 --calculator emt --out cuau.extxyz"


def run(argv: Sequence[str]):
    """Generate clusters with one of the algorithms."""
    algorithms = {
        "sblda": Part(run_sblda, "random clusters with given distances to the two nearest neighbours"),
        "quench": Part(run_quench, "distinct local minima of a potential, also of alloys"),
    }
    run_part("generate", "algorithm", algorithms, (SBLDA_EXAMPLE, QUENCH_EXAMPLE), argv)


def run_sblda(argv: Sequence[str]):
    """Generate random clusters."""
    options = parse_options("generate sblda", SbldaOptions, SBLDA_EXAMPLE, argv)
    from pyg_clusters.structures.generate import generate_sblda

    print(f"{generate_sblda(options)} clusters of {options.element} in {options.out}")


def run_quench(argv: Sequence[str]):
    """Search distinct local minima."""
    options = parse_options("generate quench", QuenchOptions, QUENCH_EXAMPLE, argv)
    from pyg_clusters.structures.generate import generate_quench

    minima = generate_quench(options)
    few = f"; no more new ones were found, of {options.count} wanted" if minima.count < options.count else ""
    print(f"{minima.count} minima of {minima.compositions} compositions in {options.out}{few}")
