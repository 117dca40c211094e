"""``pyg-clusters predict``."""

from pyg_clusters.options.predict import PredictOptions

OPTIONS = PredictOptions
EXAMPLE = "pyg-clusters predict runs/dart md.extxyz --out predictions.csv"


def run(options: PredictOptions):
    """Predict the energy of every frame, or the shielding of every atom."""
    from pyg_clusters.frames.checks import list_bad
    from pyg_clusters.inference.predict import predict

    predicted = predict(options)
    list_bad(predicted.bad)
    record = f" and {predicted.record.name}" if predicted.record else ""
    print(f"{predicted.num_frames} frames in {options.out}{record}")
