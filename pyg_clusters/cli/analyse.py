"""``pyg-clusters analyse``."""

from collections.abc import Sequence

from pyg_clusters.cli.subcommands import Part, run_part
from pyg_clusters.options.analyse import CoreSurfaceOptions
from pyg_clusters.options.parsing import parse_options

EXAMPLE = "pyg-clusters analyse core-surface runs/dart gallium --sizes 70 --out core_surface"


def run(argv: Sequence[str]):
    """Run one of the analyses of a trained model."""
    analyses = {"core-surface": Part(run_core_surface, "core and surface atoms in the features of a model")}
    run_part("analyse", "analysis", analyses, (EXAMPLE,), argv)


def run_core_surface(argv: Sequence[str]):
    """Analyse core and surface atoms."""
    options = parse_options("analyse core-surface", CoreSurfaceOptions, EXAMPLE, argv)
    from pyg_clusters.analysis import analyse_core_surface
    from pyg_clusters.frames.checks import list_bad

    analysis = analyse_core_surface(options)
    list_bad(analysis.bad)
    print("\n".join(analysis.lines))
    print(f"table, figures and report in {options.out}")
