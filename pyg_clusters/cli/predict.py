"""``pyg-clusters predict``."""

from collections.abc import Sequence

from pyg_clusters.options.parsing import parse_options
from pyg_clusters.options.predict import PredictOptions

EXAMPLE = "pyg-clusters predict runs/dart md.extxyz --out predictions.csv"


def run(argv: Sequence[str]):
    """Predict the energy of every frame, or the shielding of every atom."""
    options = parse_options("predict", PredictOptions, EXAMPLE, argv)
    from pyg_clusters.frames.checks import list_bad
    from pyg_clusters.inference.predict import predict

    predicted = predict(options)
    list_bad(predicted.bad)
    record = f" and {predicted.record.name}" if predicted.record else ""
    print(f"{predicted.num_frames} frames in {options.out}{record}")
