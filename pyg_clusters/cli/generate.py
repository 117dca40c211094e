"""``pyg-clusters generate``."""

from collections.abc import Sequence

from pyg_clusters.cli import generate_quench, generate_sblda
from pyg_clusters.cli.subcommands import Part, run_part

ALGORITHMS = {
    "sblda": Part(generate_sblda.run, "random clusters with given distances to the two nearest neighbours"),
    "quench": Part(generate_quench.run, "distinct local minima of a potential, of alloys too"),
}

EXAMPLES = (
    "pyg-clusters generate sblda --element Na --sizes 14:30:2,40 --count 200 --out na.extxyz",
    "pyg-clusters generate quench --formula Cu13Au7 --calculator emt --count 100 --out cu13au7.extxyz",
)


def run(argv: Sequence[str]):
    """Writes clusters made by an algorithm."""
    run_part("generate", "algorithm", ALGORITHMS, EXAMPLES, argv)
