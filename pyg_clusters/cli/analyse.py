"""``pyg-clusters analyse``."""

from collections.abc import Sequence

from pyg_clusters.cli import analyse_core_surface
from pyg_clusters.cli.subcommands import Part, run_part

ANALYSES = {"core-surface": Part(analyse_core_surface.run, "whether a model tells core from surface")}

EXAMPLES = ("pyg-clusters analyse core-surface runs/dart gallium --sizes 70 --out core_surface",)


def run(argv: Sequence[str]):
    """Runs one of the analyses of a trained model."""
    run_part("analyse", "analysis", ANALYSES, EXAMPLES, argv)
