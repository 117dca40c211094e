"""``pyg-clusters label``."""

from collections.abc import Callable
from typing import Any

from pyg_clusters.cli.commands import Command
from pyg_clusters.formatting import count_of
from pyg_clusters.options.label import LabelEnergyOptions, LabelPrescreenOptions, LabelShieldingOptions


def run_shielding(options: LabelShieldingOptions):
    """Label frames with shieldings."""
    from pyg_clusters.labels.label import label_shielding

    run_label(label_shielding, options)


def run_prescreen(options: LabelPrescreenOptions):
    """Select frames that are worth a shielding calculation."""
    from pyg_clusters.labels.label import label_prescreen

    run_label(label_prescreen, options)


def run_energy(options: LabelEnergyOptions):
    """Label frames with energies and forces."""
    from pyg_clusters.labels.label import label_energy

    run_label(label_energy, options)


def run_label(label: Callable[[Any], Any], options: Any):
    """Label frames, and print what was written."""
    from pyg_clusters.frames.checks import list_bad

    result = label(options)
    list_bad(result.bad)
    files = result.files
    if files.path.exists():
        print(f"{count_of(result.frames, 'frame')} in {files.path}, {result.rejected} rejected", end="")
    else:
        print(f"no frame is left for {files.path}, which is not written; {result.rejected} rejected", end="")
    print(f" in {files.aside}, each with the reason" if result.rejected else "")
    if result.removed:
        print(f"{result.removed} labelled frames are no longer in the input: they are in {files.old}")


KIND = "label"
COMMANDS = {
    "shielding": Command(
        LabelShieldingOptions,
        "pyg-clusters label shielding na.extxyz --workers 2 --out na_shieldings.extxyz",
        run_shielding,
        "NMR shieldings and orbital populations by DFT",
    ),
    "prescreen": Command(
        LabelPrescreenOptions,
        "pyg-clusters label prescreen na.extxyz --min-gap 0.14 --out na_stable.extxyz",
        run_prescreen,
        "sodium clusters that are worth a shielding calculation",
    ),
    "energy": Command(
        LabelEnergyOptions,
        "pyg-clusters label energy na.extxyz --calculator tblite --out na_energies.extxyz",
        run_energy,
        "energies and forces of a calculator",
    ),
}
