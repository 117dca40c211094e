"""What turns predictions of a trained model into intervals of a stated coverage."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from pyg_clusters.conformal import conformal_quantile
from pyg_clusters.errors import InputError
from pyg_clusters.files import atomic_write
from pyg_clusters.inference.flags import OutOfRangeFlagger

CALIBRATION = "calibration.json"
"""The calibration in the folder of a run."""

SpreadKind = Literal["none", "ensemble", "last_layer"]


@dataclass
class Calibration:
    r"""Scores of held-out clusters, and what else intervals are made of.

    The error that is expected of a cluster of N atoms is

    .. math::
        w = \sqrt{s^2 + \sigma^2 N},

    s the spread of the prediction (zero where there is none) and :math:`\sigma^2` the mean of the squared errors per
    atom on the training set: independent errors of the atoms add up in squares, and so do those with what the spread
    stands for. Scores are errors over w; the interval is the prediction plus or minus w times their conformal quantile
    (:mod:`pyg_clusters.conformal`), which holds whether or not w is a good guess. Of values per atom N is one.

    Attributes:
        spread: Where the spread comes from.
        noise: σ in eV (or ppm).
        scores: Held-out scores ``[num]``.
        groups: Group of each ``[num]``.
        weights: Hash of the weights of the model.
        covariance: That of a :class:`~pyg_clusters.models.LastLayerPosterior`, if that is where it comes from.
        range: What the training set looked like.
        notes: What else is worth knowing.
    """

    spread: SpreadKind
    noise: float
    scores: list[float]
    groups: list[int]
    weights: str
    covariance: list[list[float]] | None = None
    range: OutOfRangeFlagger | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def quantile(self, coverage: float) -> float:
        """Conformal quantile of the scores."""
        return conformal_quantile(self.scores, coverage, self.groups)

    def half_width(self, coverage: float, sizes: ArrayLike, spread: ArrayLike | None = None) -> np.ndarray:
        """Half the width of the intervals in eV (or ppm).

        Args:
            coverage: Probability with which the truth is to lie within.
            sizes: Numbers of atoms ``[num]`` (ones for values per atom).
            spread: Spreads of the predictions ``[num]``, where there are some.

        Raises:
            InputError: If the coverage is not between 0 and 1, or too high for so few held-out groups.
        """
        return self.quantile(coverage) * expected_error(self.noise, sizes, spread)

    def save(self, path: str | Path):
        """Writes it, whole or not at all."""
        with atomic_write(path) as temporary:
            temporary.write_text(self._to_json() + "\n")

    def fingerprint(self) -> str:
        """What tells it from others."""
        return hashlib.sha256(self._to_json().encode()).hexdigest()[:16]

    def _to_json(self) -> str:
        values = asdict(self) | {"range": None if self.range is None else self.range.to_json()}
        return json.dumps(values, allow_nan=False)

    @classmethod
    def load(cls, path: str | Path) -> "Calibration":
        """Reads what :meth:`save` wrote.

        Raises:
            InputError: If the file is damaged.
        """
        try:
            values = json.loads(Path(path).read_text())
            values["range"] = None if values["range"] is None else OutOfRangeFlagger.from_json(values["range"])
            return cls(**values)
        except (ValueError, KeyError, TypeError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{path}: damaged ({reason}); make it anew with pyg-clusters calibrate") from error


def expected_error(noise: float, sizes: ArrayLike, spread: ArrayLike | None = None) -> np.ndarray:
    """The error that is expected of predictions, ``[num]``; see :class:`Calibration`."""
    variance = noise**2 * np.asarray(sizes, dtype=np.float64)
    if spread is not None:
        variance = variance + np.square(np.asarray(spread, dtype=np.float64))
    return np.sqrt(variance)


def noise_of(error: ArrayLike, sizes: ArrayLike) -> float:
    """Root of the mean squared error per atom, from errors ``[num]`` of clusters of ``sizes [num]``."""
    return float(np.sqrt(np.mean(np.square(np.asarray(error, dtype=np.float64)) / np.asarray(sizes))))
