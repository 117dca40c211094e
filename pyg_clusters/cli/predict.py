"""``pyg-clusters predict``."""

from pyg_clusters.formatting import count_of
from pyg_clusters.options.predict import PredictOptions

OPTIONS = PredictOptions
EXAMPLE = "pyg-clusters predict gallium-forces md.extxyz --out predictions.csv"


def run(options: PredictOptions):
    """Predict the energy of every frame, or the shielding of every atom."""
    from pyg_clusters.frames.checks import list_bad
    from pyg_clusters.inference.flags import text_of_flags
    from pyg_clusters.inference.predict import predict

    predicted = predict(options)
    list_bad(predicted.bad)
    record = f" and {predicted.record.name}" if predicted.record else ""
    print(f"{count_of(predicted.num_frames, 'frame')} in {options.out}{record}")
    if predicted.num_flagged:
        print(f"{text_of_flags(predicted.num_flagged, predicted.num_frames)}: the reasons are in pred_flag")
