"""Options of ``pyg-clusters calibrate``."""

from dataclasses import dataclass, field
from typing import Literal

from pyg_clusters.options.common import DeviceOptions


@dataclass(kw_only=True)
class CalibrateOptions(DeviceOptions):
    """Calibrate a run or an ensemble: from its errors on the validation part of the split, predict and evaluate make
    intervals of a stated coverage (--coverage), and the ranges of the training set are recorded for flags. Writes
    calibration.json into the folder.
    """

    run: str = field(metadata={"positional": True})
    """folder of a run, or of an ensemble of runs"""
    spread: Literal["none", "last_layer"] = "none"
    """of a single model: intervals that grow with the root of the number of atoms, or also with the spread of a
    Gaussian posterior of the last layer (an ensemble has its own spread)"""
