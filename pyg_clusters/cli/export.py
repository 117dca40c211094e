"""``pyg-clusters export``."""

from pyg_clusters.options.export import ExportOptions

OPTIONS = ExportOptions
EXAMPLE = "pyg-clusters export gallium-forces gallium.pt"


def run(options: ExportOptions):
    """Write a model to a file for molecular-dynamics programs."""
    from pyg_clusters.inference.export import export

    exported = export(options)
    print(
        f"{exported.file}: energies (eV) and forces (eV/Å) of {exported.elements}, {exported.precision}, on "
        f"{options.device}\nASE: MetatomicCalculator({exported.file!r}) of the package metatomic-ase"
    )
