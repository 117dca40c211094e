"""``pyg-clusters label``."""

from collections.abc import Callable, Sequence
from functools import partial

from pyg_clusters.cli.subcommands import Part, run_part
from pyg_clusters.options.label import LabelEnergyOptions, LabelOptions, LabelPrescreenOptions, LabelShieldingOptions
from pyg_clusters.options.parsing import parse_options

LABELS: dict[str, tuple[type[LabelOptions], str, str]] = {
    "shielding": (
        LabelShieldingOptions,
        "NMR shieldings and orbital populations by DFT",
        "pyg-clusters label shielding na.extxyz --workers 2 --out na_shieldings.extxyz",
    ),
    "prescreen": (
        LabelPrescreenOptions,
        "sodium clusters that are worth a shielding calculation",
        "pyg-clusters label prescreen na.extxyz --min-gap 0.14 --out na_stable.extxyz",
    ),
    "energy": (
        LabelEnergyOptions,
        "energies and forces of a calculator",
        "pyg-clusters label energy na.extxyz --calculator tblite --out na_energies.extxyz",
    ),
}
"""Options, purpose and example of each label."""


def run(argv: Sequence[str]):
    """Label frames."""
    parts = {name: Part(partial(run_label, name), purpose) for name, (_, purpose, _) in LABELS.items()}
    run_part("label", "label", parts, [example for _, _, example in LABELS.values()], argv)


def run_label(name: str, argv: Sequence[str]):
    """Label frames with one kind of label."""
    kind, _, example = LABELS[name]
    options = parse_options(f"label {name}", kind, example, argv)
    from pyg_clusters.frames.checks import list_bad
    from pyg_clusters.labels.label import label_energy, label_prescreen, label_shielding

    functions: dict[str, Callable] = {
        "shielding": label_shielding,
        "prescreen": label_prescreen,
        "energy": label_energy,
    }
    result = functions[name](options)
    list_bad(result.bad)
    files = result.files
    if files.path.exists():
        print(f"{result.frames} frames in {files.path}, {result.rejected} rejected", end="")
    else:
        print(f"no frame is left for {files.path}, which is not written; {result.rejected} rejected", end="")
    print(f" in {files.aside}, each with the reason" if result.rejected else "")
    if result.removed:
        print(f"{result.removed} labelled frames are no longer in the input: they are in {files.old}")
