"""``pyg-clusters label``."""

from collections.abc import Sequence

from pyg_clusters.cli import label_energy, label_shielding
from pyg_clusters.errors import InputError

LABELS = {
    "shielding": (label_shielding.run, "NMR shieldings and orbital populations by DFT"),
    "energy": (label_energy.run, "energies and forces of a calculator"),
}

HELP = f"""usage: pyg-clusters label WHAT [ARGUMENTS]    (WHAT --help tells the arguments)

{chr(10).join(f"  {name:<10} {purpose}" for name, (_, purpose) in LABELS.items())}

example: pyg-clusters label shielding na.extxyz --out na_shieldings.extxyz
example: pyg-clusters label energy na.extxyz --calculator tblite --out na_energies.extxyz
"""


def run(argv: Sequence[str]):
    """Writes frames with labels."""
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP, end="")
        raise SystemExit(0)
    what, *rest = argv
    if what not in LABELS:
        raise InputError(f"label: cannot label {what!r}; give {' or '.join(LABELS)} first")
    LABELS[what][0](rest)
