"""What a prediction says besides: how sure it is, and whether it is one within the trained range."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jsonargparse import ArgumentParser

from pyg_clusters.cli.runs import calibration_of
from pyg_clusters.conformal import check_coverage
from pyg_clusters.frames import FrameBlock
from pyg_clusters.inference import Calibration, Predictor, TrainedRange
from pyg_clusters.inference.predictor import domain_of


def add_coverage_option(parser: ArgumentParser):
    """Adds the coverage of intervals."""
    parser.add_argument(
        "--coverage", type=float | None, help="probability of the intervals, 0.9 say (first: pyg-clusters calibrate)"
    )


def calibration_for(path: Path, coverage: float | None) -> Calibration | None:
    """The calibration of a model, which must be there if intervals are asked for.

    Raises:
        InputError: If the coverage is not between 0 and 1 or too high, or the model is not calibrated.
    """
    if coverage is not None:
        check_coverage(coverage)
    calibration = calibration_of(path, required=coverage is not None)
    if calibration is not None and coverage is not None:
        calibration.quantile(coverage)
    return calibration


@dataclass
class Uncertainty:
    """Further columns of predicted energies.

    Attributes:
        calibration: Of the model, if there is one.
        coverage: Of the intervals, if they are asked for.
        range: What the training set looked like, as far as it is known.
    """

    calibration: Calibration | None
    coverage: float | None
    range: TrainedRange | None

    @classmethod
    def of(cls, predictor: Predictor, calibration: Calibration | None, coverage: float | None) -> "Uncertainty":
        """That of a model: what its calibration says of the training set, or else what the model itself does."""
        domain = domain_of(predictor.model)
        known = TrainedRange.of_domain(domain) if domain else None
        return cls(calibration, coverage, calibration.range if calibration and calibration.range else known)

    def columns(self, frames: FrameBlock, energy: np.ndarray, spread: np.ndarray | None) -> dict[str, np.ndarray]:
        """Values of each frame: ``pred_energy_spread``, ``pred_energy_low``, ``pred_energy_high`` (eV) and ``flag``.

        Args:
            frames: The frames.
            energy: Their predicted energies in eV ``[num_frames]``.
            spread: Standard deviations in eV ``[num_frames]``, if the model gives them.
        """
        columns = {} if spread is None else {"pred_energy_spread": spread}
        if self.calibration is not None and self.coverage is not None:
            half = self.calibration.half_width(self.coverage, frames.sizes, spread)
            columns |= {"pred_energy_low": energy - half, "pred_energy_high": energy + half}
        if self.range is not None:
            arrays = (torch.from_numpy(np.ascontiguousarray(part)) for part in (frames.z, frames.pos, frames.ptr))
            columns["flag"] = self.range.flags(*arrays).astype(str)
        return columns
