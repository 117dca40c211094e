"""``pyg-clusters describe``."""

from pyg_clusters.options.describe import DescribeOptions

OPTIONS = DescribeOptions
EXAMPLE = "pyg-clusters describe gallium --out description"


def run(options: DescribeOptions):
    """Describe a set of clusters by the topological descriptor."""
    from pyg_clusters.analysis.description import describe, summary_lines
    from pyg_clusters.frames.checks import list_bad

    description = describe(options)
    list_bad(description.frames.bad)
    print("\n".join(summary_lines(description)))
    if options.out is not None:
        print(f"tables, figures and report in {options.out}")
