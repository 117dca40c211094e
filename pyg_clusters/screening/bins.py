"""How wide the bins of a screening are beside the error of the model."""

import json
import warnings
from pathlib import Path

import numpy as np

from pyg_clusters.composition import kind_label
from pyg_clusters.models.checkpoint import is_ensemble, model_folder, read_configuration
from pyg_clusters.screening.candidates import Screening
from pyg_clusters.screening.strategies import bin_width
from pyg_clusters.units import KCAL_PER_MOL


def warn_of_narrow_bins(screening: Screening, num_bins: int, model: Path):
    """Says so where bins are narrower than the error of the model: it cannot tell the frames of two of them apart."""
    error = error_on_test_set(model)
    if error is None:
        return
    widths = widths_of_bins(screening, num_bins)
    narrow = {size: width for size, width in widths.items() if width < error}
    if narrow:
        size, width = min(narrow.items(), key=lambda item: item[1])
        others = (
            f" and of {len(narrow) - 1} other {'compositions' if isinstance(size, str) else 'sizes'}"
            if len(narrow) > 1
            else ""
        )
        warnings.warn(
            f"the bins of {kind_label(size)}{others} are {width:.2f} kcal/mol wide, narrower than the error of the "
            f"model on its test set ({error:.2f} kcal/mol); it does not tell neighbouring bins apart, fewer --bins "
            "would do",
            stacklevel=2,
        )


def widths_of_bins(screening: Screening, num_bins: int) -> dict[int | str, float]:
    """Width of the bins of each size (composition, for alloys) in kcal/mol."""
    return {
        kind: KCAL_PER_MOL * bin_width(screening.energy[screening.kind == kind], num_bins)
        for kind in np.unique(screening.kind).tolist()
    }


def text_of_bins(screening: Screening, num_bins: int, model: Path) -> str:
    """How wide the bins are, beside the error of the model where it is known."""
    widths = widths_of_bins(screening, num_bins).values()
    low, high = min(widths), max(widths)
    wide = f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"
    error = error_on_test_set(model)
    beside = "" if error is None else f"; the model is off by {error:.2f} kcal/mol on its test set"
    return f"The {num_bins} bins of a size are {wide} kcal/mol wide{beside}."


def error_on_test_set(model: Path) -> float | None:
    """Mean absolute error of a model on its test set in kcal/mol per cluster, where its run or its notes tell it."""
    metrics = model / "test_metrics.json"
    if metrics.is_file():
        return json.loads(metrics.read_text())["overall"].get("mae_kcal_mol")
    if is_ensemble(model):
        return None
    return read_configuration(model_folder(model)).get("notes", {}).get("test_mae_kcal_mol")
