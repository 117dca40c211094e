"""``pyg-clusters analyse``."""

from pyg_clusters.cli.commands import Command
from pyg_clusters.options.analyse import CoreSurfaceOptions


def run_core_surface(options: CoreSurfaceOptions):
    """Analyse core and surface atoms."""
    from pyg_clusters.analysis.core_surface_report import analyse_core_surface, summary_lines
    from pyg_clusters.frames.checks import list_bad

    result = analyse_core_surface(options)
    list_bad(result.frames.bad)
    print("\n".join(summary_lines(result)))
    print(f"table, figures and report in {options.out}")


KIND = "analysis"
COMMANDS = {
    "core-surface": Command(
        CoreSurfaceOptions,
        "pyg-clusters analyse core-surface runs/dart gallium_minima --sizes 70 --out core_surface",
        run_core_surface,
        "core and surface atoms in the features of a model",
    )
}
