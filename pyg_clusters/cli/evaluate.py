"""``pyg-clusters evaluate``."""

from collections.abc import Sequence

from pyg_clusters.options.evaluate import EvaluateOptions
from pyg_clusters.options.parsing import parse_options

EXAMPLE = "pyg-clusters evaluate runs/dart"


def run(argv: Sequence[str]):
    """Print the errors of a trained model and write them as JSON."""
    options = parse_options("evaluate", EvaluateOptions, EXAMPLE, argv)
    from pyg_clusters.evaluation import evaluate

    evaluate(options).print()
