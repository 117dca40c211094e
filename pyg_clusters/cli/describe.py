"""``pyg-clusters describe``."""

from pyg_clusters.options.describe import DescribeOptions

OPTIONS = DescribeOptions
EXAMPLE = "pyg-clusters describe gallium --out description"


def run(options: DescribeOptions):
    """Describe a set of clusters by the topological descriptor."""
    from pyg_clusters.analysis import describe
    from pyg_clusters.frames.checks import list_bad

    described = describe(options)
    list_bad(described.bad)
    print("\n".join(described.lines))
    if options.out is not None:
        print(f"tables, figures and report in {options.out}")
