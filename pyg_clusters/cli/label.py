"""``pyg-clusters label``."""

from collections.abc import Sequence

from pyg_clusters.cli import label_energy, label_prescreen, label_shielding
from pyg_clusters.cli.subcommands import Part, run_part

LABELS = {
    "shielding": Part(label_shielding.run, "NMR shieldings and orbital populations by DFT"),
    "prescreen": Part(label_prescreen.run, "which sodium clusters a shielding is worth computing for"),
    "energy": Part(label_energy.run, "energies and forces of a calculator"),
}

EXAMPLES = (
    "pyg-clusters label shielding na.extxyz --out na_shieldings.extxyz",
    "pyg-clusters label energy na.extxyz --calculator tblite --out na_energies.extxyz",
)


def run(argv: Sequence[str]):
    """Writes frames with labels."""
    run_part("label", "label", LABELS, EXAMPLES, argv)
