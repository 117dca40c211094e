"""``pyg-clusters analyse``."""

from pyg_clusters.cli.commands import Command
from pyg_clusters.options.analyse import CoreSurfaceOptions


def run_core_surface(options: CoreSurfaceOptions):
    """Analyse core and surface atoms."""
    from pyg_clusters.analysis import analyse_core_surface
    from pyg_clusters.frames.checks import list_bad

    analysis = analyse_core_surface(options)
    list_bad(analysis.bad)
    print("\n".join(analysis.lines))
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
