"""Options of how sure a prediction is."""

from pathlib import Path

from jsonargparse import ArgumentParser

from pyg_clusters.conformal import check_coverage
from pyg_clusters.inference import Calibration
from pyg_clusters.inference.run import calibration_of


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
