"""What a prediction says besides: how sure it is, and whether it is one within the trained range."""

from dataclasses import dataclass

import numpy as np

from pyg_clusters.errors import InputError
from pyg_clusters.inference.calibration import Calibration
from pyg_clusters.inference.predictor import Predictor
from pyg_clusters.inference.scoring import ScoredBlock
from pyg_clusters.inference.trained_range import TrainedRange
from pyg_clusters.models.domain import domain_of


@dataclass
class Uncertainty:
    """Further columns of predictions, in the order of :attr:`types`.

    Of energies ``pred_energy_spread``, ``pred_energy_low``, ``pred_energy_high`` (eV) and ``flag``, as far as they are
    known or asked for; of shieldings ``pred_nmr_shielding_spread`` (ppm).

    Attributes:
        types: Types of the columns by name, as numpy and Arrow call them.
        calibration: Of the model, if there is one.
        coverage: Of the intervals, if they are asked for.
        range: What the training set looked like, as far as it is known.
    """

    types: dict[str, str]
    calibration: Calibration | None = None
    coverage: float | None = None
    range: TrainedRange | None = None

    @classmethod
    def of(cls, predictor: Predictor, calibration: Calibration | None, coverage: float | None) -> "Uncertainty":
        """That of a model: what its calibration says of the training set, or else what the model itself does.

        Raises:
            InputError: If intervals are asked of a model of shieldings.
        """
        dtype = predictor.dtype_name
        if predictor.per_atom:
            if coverage is not None:
                raise InputError("--coverage of predict is for energies; intervals of shieldings: evaluate --coverage")
            return cls({"pred_nmr_shielding_spread": dtype} if predictor.gives_spread else {})
        types = {"pred_energy_spread": dtype} if predictor.gives_spread else {}
        if calibration is not None and coverage is not None:
            types |= {"pred_energy_low": "float64", "pred_energy_high": "float64"}
        domain = domain_of(predictor.model)
        known = calibration.range if calibration else None
        if known is None and domain is not None:
            known = TrainedRange.of_domain(domain)
        return cls(types if known is None else types | {"flag": "string"}, calibration, coverage, known)

    def columns(self, scored: ScoredBlock) -> dict[str, np.ndarray]:
        """Values of the frames of a block ``[num_frames]``, or of their atoms ``[num_atoms]``.

        The block has been flagged by :attr:`range`, if there is one.
        """
        frames, spread = scored.frames, scored.spread
        columns = {} if spread is None else {next(iter(self.types)): spread}
        if "pred_energy_low" in self.types:
            half = self.calibration.half_width(self.coverage, frames.sizes, spread)
            columns |= {"pred_energy_low": scored.energy - half, "pred_energy_high": scored.energy + half}
        if scored.flags is not None:
            columns["flag"] = scored.flags.astype(str)
        return columns

    def settings(self) -> dict[str, object]:
        """What the columns depend on beside the model and the frames, in values that JSON knows."""
        return {"coverage": self.coverage, "calibration": self.calibration and self.calibration.fingerprint()}
