"""``pyg-clusters describe``."""

from collections.abc import Sequence

from pyg_clusters.options.describe import DescribeOptions
from pyg_clusters.options.parsing import parse_options

EXAMPLE = "pyg-clusters describe gallium --out description"


def run(argv: Sequence[str]):
    """Describe a set of clusters by the topological descriptor."""
    options = parse_options("describe", DescribeOptions, EXAMPLE, argv)
    from pyg_clusters.analysis import describe
    from pyg_clusters.frames.checks import list_bad

    described = describe(options)
    list_bad(described.bad)
    print("\n".join(described.lines))
    if options.out is not None:
        print(f"tables, figures and report in {options.out}")
