"""``pyg-clusters evaluate``."""

from pyg_clusters.options.evaluate import EvaluateOptions

OPTIONS = EvaluateOptions
EXAMPLE = "pyg-clusters evaluate runs/dart"


def run(options: EvaluateOptions):
    """Print the errors of a trained model and write them as JSON."""
    from pyg_clusters.evaluation import evaluate

    evaluate(options).print()
