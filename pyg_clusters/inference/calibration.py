"""Calibration and uncertainty of predictions: spreads, conformal intervals and flags."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from torch import nn

from pyg_clusters.errors import InputError, one_line
from pyg_clusters.files import read_json, write_text
from pyg_clusters.inference.flags import OutOfRangeFlagger
from pyg_clusters.inference.predictor import Predictor
from pyg_clusters.inference.scoring import ScoredBlock
from pyg_clusters.models.training_domain import domain_of
from pyg_clusters.terminal import count_of
from pyg_clusters.units import KCAL_PER_MOL

CALIBRATION = "calibration.json"  # the calibration in the folder of a run

SpreadKind = Literal["none", "ensemble", "last_layer"]


def conformal_quantile(scores: ArrayLike, coverage: float, groups: ArrayLike | None = None) -> float:
    r"""Compute the quantile of scores for split conformal prediction.

    A new cluster exceeds it with a probability of at most ``1 - coverage``. Scores are
    :math:`s_i = |y_i - \hat y_i| / w_i` of a held-out set, where :math:`w_i` is any estimate of the error made without
    that set. With the quantile q of the scores, the interval :math:`\hat y \pm q\, w` contains the true value with at
    least the stated probability. This holds for any model and any quality of the estimate, if new clusters are drawn
    from the same distribution as the held-out ones (Vovk, Gammerman, Shafer, *Algorithmic learning in a random world*,
    2005; Angelopoulos & Bates, `"A gentle introduction to conformal prediction" <https://arxiv.org/abs/2107.07511>`_,
    2021).

    Clusters of one search segment or trajectory are similar. Therefore whole groups are treated as exchangeable: each
    of K groups has weight 1 / (K + 1), shared by its clusters, and the remaining weight lies at infinity (Lee, Barber,
    Willett, `"Distribution-free inference with hierarchical data" <https://arxiv.org/abs/2306.06342>`_, 2023). If every
    cluster is its own group, this is the usual quantile of rank :math:`\lceil (n + 1)\, c \rceil`.

    Args:
        scores: Scores of the held-out set ``[num]``.
        coverage: Probability that an interval contains the true value.
        groups: Group of each score ``[num]``, numbers or strings; by default each score is its own group.

    Raises:
        InputError: If the coverage is not between 0 and 1, or above K / (K + 1).

    Example:
        >>> conformal_quantile([1, 2, 3, 4, 5, 6, 7, 8, 9], 0.8)  # the eighth of nine: 8 / 10
        8.0
        >>> conformal_quantile([1, 2, 3, 4, 5, 6], 0.5, ["a", "a", "a", "a", "b", "b"])
        5.0
    """
    if not 0 < coverage < 1:
        raise InputError(f"coverage must be between 0 and 1 (0.9 for example), got {coverage:g}")
    scores = np.asarray(scores, dtype=np.float64)
    groups = np.arange(len(scores)) if groups is None else np.asarray(groups)
    _, group, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(1.0 / counts[group[order]]) / (len(counts) + 1)
    index = int(np.searchsorted(reached, coverage - 1e-9))
    if index == len(scores):
        number = len(counts)
        raise InputError(
            f"coverage {coverage:g} needs {int(np.ceil(coverage / (1 - coverage) - 1e-6))} independent groups of "
            f"clusters to calibrate with, there {'is' if number == 1 else 'are'} {number}; ask for at most "
            f"{number / (number + 1):.3f}"
        )
    return float(scores[order[index]])


@dataclass
class Calibration:
    r"""Conformal calibration of a model from the scores of held-out clusters.

    The expected error of a cluster of N atoms is

    .. math::
        w = \sqrt{s^2 + \sigma^2 N},

    where s is the spread of the prediction (zero if the model has none) and :math:`\sigma^2` is the mean squared error
    per atom on the training set. The formula assumes independent errors of the atoms, added in quadrature to the
    spread. Scores are errors divided by w, and the interval is the prediction plus or minus w times their conformal
    quantile (:func:`conformal_quantile`). It is valid even if w is a poor estimate. For values per atom, N is one.
    """

    spread: SpreadKind  #: Source of the spread.
    noise: float  #: σ in eV (or ppm).
    scores: list[float]  #: Held-out scores ``[num]``.
    groups: list[int]  #: Group of each score ``[num]``.
    weights: str  #: Hash of the weights of the model.
    #: Covariance of a :class:`~pyg_clusters.models.LastLayerPosterior`, if the spread comes from it.
    covariance: list[list[float]] | None = None
    range: OutOfRangeFlagger | None = None  #: Range of the training set.
    notes: dict[str, Any] = field(default_factory=dict)  #: Additional details.

    def quantile(self, coverage: float) -> float:
        """Conformal quantile of the scores."""
        return conformal_quantile(self.scores, coverage, self.groups)

    def half_width(self, coverage: float, sizes: ArrayLike, spread: ArrayLike | None = None) -> np.ndarray:
        """Compute the half-widths of the intervals, ``[num]`` in eV (or ppm).

        Args:
            coverage: Probability that an interval contains the true value.
            sizes: Numbers of atoms ``[num]`` (ones for values per atom).
            spread: Spreads of the predictions ``[num]``, if the model provides them.
        """
        return self.quantile(coverage) * expected_error(self.noise, sizes, spread)

    def __str__(self) -> str:
        number, energies = len(set(self.groups)), self.notes["unit"] == "eV"
        target, unit, factor = ("cluster", "kcal/mol", KCAL_PER_MOL) if energies else ("atom", "ppm", 1.0)
        highest, scores = number / (number + 1), count_of(len(self.scores), f"held-out {target}")
        lines = [f"intervals from {scores} in {count_of(number, 'group')}:"]
        size = self.notes.get("size", 1)
        condition = f" for {size} atoms" if energies else ""
        spread = ", and more with the spread" if self.spread != "none" else ""
        for coverage in (coverage for coverage in (0.5, 0.8, 0.9, 0.95) if coverage < highest):
            half = float(self.half_width(coverage, [size])[0]) * factor
            lines.append(f"  {100 * coverage:.0f} %: ± {half:.2f} {unit}{condition}{spread}")
        most = math.floor(1000 * highest) / 1000
        lines.append(f"next: pyg-clusters predict RUN FRAMES --coverage X --out FILE (X up to {most:g})")
        return "\n".join(lines)

    def save(self, path: str | Path):
        """Write the calibration to a file atomically."""
        write_text(path, self._to_json() + "\n")

    def fingerprint(self) -> str:
        """Hash of the content."""
        return hashlib.sha256(self._to_json().encode()).hexdigest()[:16]

    def _to_json(self) -> str:
        return json.dumps(asdict(self), allow_nan=False)

    def _check(self):
        """Check types, lengths and signs of the values read from a file."""
        covariance = np.atleast_2d(np.zeros((0, 0)) if self.covariance is None else np.array(self.covariance, float))
        sound = {
            "spread": self.spread in get_args(SpreadKind),
            "noise": isinstance(self.noise, int | float) and 0 <= self.noise < math.inf,
            "scores": isinstance(self.scores, list)
            and all(isinstance(score, int | float) and 0 <= score < math.inf for score in self.scores),
            "groups": isinstance(self.groups, list) and all(isinstance(group, int) for group in self.groups),
            "weights": isinstance(self.weights, str),
            "covariance": covariance.shape[0] == covariance.shape[1] and bool(np.isfinite(covariance).all()),
            "notes": isinstance(self.notes, dict),
        }
        wrong = [name for name, fine in sound.items() if not fine]
        if wrong:
            raise ValueError(f"{wrong[0]} is {str(getattr(self, wrong[0]))[:80]}")
        if not 0 < len(self.scores) == len(self.groups):
            raise ValueError(f"{len(self.scores)} scores of {len(self.groups)} groups")

    @classmethod
    def load(cls, path: str | Path) -> "Calibration":
        """Read a saved calibration.

        Raises:
            InputError: If the file is corrupted.
        """
        remedy = "recreate it with pyg-clusters calibrate"
        values = read_json(path, remedy)
        try:
            values["range"] = None if values["range"] is None else OutOfRangeFlagger(**values["range"])
            calibration = cls(**values)
            calibration._check()
            return calibration
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: corrupted ({one_line(error)}); {remedy}") from error


def expected_error(noise: float, sizes: ArrayLike, spread: ArrayLike | None = None) -> np.ndarray:
    """Compute the expected errors of predictions ``[num]``, see :class:`Calibration`."""
    variance = noise**2 * np.asarray(sizes, dtype=np.float64)
    if spread is not None:
        variance = variance + np.square(np.asarray(spread, dtype=np.float64))
    return np.sqrt(variance)


def noise_of(error: ArrayLike, sizes: ArrayLike) -> float:
    """Compute the root mean square error per atom from errors ``[num]`` of clusters with ``sizes [num]``."""
    return float(np.sqrt(np.mean(np.square(np.asarray(error, dtype=np.float64)) / np.asarray(sizes))))


def flagger_of(model: nn.Module, calibration: Calibration | None) -> OutOfRangeFlagger | None:
    """Return the range of the training set of a model, from its calibration or else from the model, if known."""
    if calibration is not None and calibration.range is not None:
        return calibration.range
    domain = domain_of(model)
    return None if domain is None else OutOfRangeFlagger.of_domain(domain)


@dataclass
class Uncertainty:
    """Uncertainty columns of predictions, in the order of :attr:`types`.

    For energies, ``pred_energy_spread``, ``pred_energy_low`` and ``pred_energy_high`` in eV per frame; for shieldings,
    ``pred_nmr_shielding_spread``, ``..._low`` and ``..._high`` in ppm per atom, as far as they are available or
    requested. Frames also have ``pred_flag``, which is repeated for each atom if shieldings are predicted.
    """

    types: dict[str, str]  #: NumPy and Arrow names of the types of the columns, by name.
    calibration: Calibration | None = None  #: Calibration of the model, if there is one.
    coverage: float | None = None  #: Coverage of the intervals, if requested.
    range: OutOfRangeFlagger | None = None  #: Range of the training set, if known.

    @classmethod
    def of(cls, predictor: Predictor, calibration: Calibration | None, coverage: float | None) -> "Uncertainty":
        """Select the columns of a model; see :func:`flagger_of` for the range of the training set."""
        name = "pred_nmr_shielding" if predictor.per_atom else "pred_energy"
        types = {f"{name}_spread": predictor.dtype_name} if predictor.gives_spread else {}
        if calibration is not None and coverage is not None:
            types |= {f"{name}_low": "float64", f"{name}_high": "float64"}
        known = flagger_of(predictor.model, calibration)
        return cls(types if known is None else types | {"pred_flag": "string"}, calibration, coverage, known)

    def columns(self, scored: ScoredBlock) -> dict[str, np.ndarray]:
        """Compute the columns of a block, ``[num_frames]`` or ``[num_atoms]``.

        If there is a :attr:`range`, the block must have been flagged with it.
        """
        values, spread = scored.prediction.values.numpy(), scored.spread
        columns = [] if spread is None else [spread]
        if self.calibration is not None and self.coverage is not None:
            sizes = np.ones(len(values)) if scored.prediction.per_atom else scored.frames.sizes
            half = self.calibration.half_width(self.coverage, sizes, spread)
            columns += [values - half, values + half]
        if scored.flags is not None:
            row = scored.frames.frame_of_atom if scored.prediction.per_atom else slice(None)
            columns.append(scored.flags.astype(str)[row])
        return dict(zip(self.types, columns, strict=True))

    def settings(self) -> dict[str, object]:
        """Settings that determine the columns, in addition to the model and the frames, as JSON types."""
        return {"coverage": self.coverage, "calibration": self.calibration and self.calibration.fingerprint()}
