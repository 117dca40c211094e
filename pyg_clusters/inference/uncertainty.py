"""What a prediction says besides: how sure it is, and whether it is one within the trained range."""

from dataclasses import dataclass

import numpy as np

from pyg_clusters.inference.calibration import Calibration
from pyg_clusters.inference.flags import OutOfRangeFlagger
from pyg_clusters.inference.predictor import Predictor
from pyg_clusters.inference.scoring import ScoredBlock
from pyg_clusters.models.training_domain import domain_of


@dataclass
class Uncertainty:
    """Further columns of predictions, in the order of :attr:`types`.

    ``pred_energy_spread``, ``pred_energy_low`` and ``pred_energy_high`` (eV) of frames, or
    ``pred_nmr_shielding_spread`` and so on (ppm) of their atoms, as far as they are known or asked for; and
    ``pred_flag`` of frames.

    Attributes:
        types: Types of the columns by name, as numpy and Arrow call them.
        calibration: Of the model, if there is one.
        coverage: Of the intervals, if they are asked for.
        range: What the training set looked like, as far as it is known.
    """

    types: dict[str, str]
    calibration: Calibration | None = None
    coverage: float | None = None
    range: OutOfRangeFlagger | None = None

    @classmethod
    def of(cls, predictor: Predictor, calibration: Calibration | None, coverage: float | None) -> "Uncertainty":
        """That of a model: what its calibration says of the training set, or else what the model itself does."""
        name = "pred_nmr_shielding" if predictor.per_atom else "pred_energy"
        types = {f"{name}_spread": predictor.dtype_name} if predictor.gives_spread else {}
        if calibration is not None and coverage is not None:
            types |= {f"{name}_low": "float64", f"{name}_high": "float64"}
        if predictor.per_atom:
            return cls(types, calibration, coverage)
        domain = domain_of(predictor.model)
        known = calibration.range if calibration else None
        if known is None and domain is not None:
            known = OutOfRangeFlagger.of_domain(domain)
        return cls(types if known is None else types | {"pred_flag": "string"}, calibration, coverage, known)

    def columns(self, scored: ScoredBlock) -> dict[str, np.ndarray]:
        """Values of the frames of a block ``[num_frames]``, or of their atoms ``[num_atoms]``.

        The block has been flagged by :attr:`range`, if there is one.
        """
        values, spread = scored.prediction.values.numpy(), scored.spread
        found = [] if spread is None else [spread]
        if self.calibration is not None and self.coverage is not None:
            sizes = np.ones(len(values)) if scored.prediction.per_atom else scored.frames.sizes
            half = self.calibration.half_width(self.coverage, sizes, spread)
            found += [values - half, values + half]
        if scored.flags is not None:
            found.append(scored.flags.astype(str))
        return dict(zip(self.types, found, strict=True))

    def settings(self) -> dict[str, object]:
        """What the columns depend on beside the model and the frames, in values that JSON knows."""
        return {"coverage": self.coverage, "calibration": self.calibration and self.calibration.fingerprint()}
