"""``pyg-clusters generate``."""

from collections.abc import Sequence

from pyg_clusters.cli import generate_quench, generate_sblda
from pyg_clusters.errors import InputError

ALGORITHMS = {
    "sblda": (generate_sblda.run, "random clusters with given distances to the two nearest neighbours"),
    "quench": (generate_quench.run, "distinct local minima of a potential, of alloys too"),
}

HELP = f"""usage: pyg-clusters generate ALGORITHM [ARGUMENTS]    (ALGORITHM --help tells the arguments)

{chr(10).join(f"  {name:<8} {purpose}" for name, (_, purpose) in ALGORITHMS.items())}

example: pyg-clusters generate sblda --element Na --sizes 14:30:2,40 --count 200 --out na.extxyz
example: pyg-clusters generate quench --formula Cu13Au7 --calculator emt --count 100 --out cu13au7.extxyz
"""


def run(argv: Sequence[str]):
    """Writes clusters made by an algorithm."""
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP, end="")
        raise SystemExit(0)
    algorithm, *rest = argv
    if algorithm not in ALGORITHMS:
        raise InputError(f"generate: there is no algorithm {algorithm!r}; give {' or '.join(ALGORITHMS)} first")
    ALGORITHMS[algorithm][0](rest)
