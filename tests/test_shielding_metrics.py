import numpy as np
import pytest
from scipy.stats import genlogistic

from pyg_clusters.errors import InputError
from pyg_clusters.metrics import peak_position, shielding_metrics


def test_by_hand():
    metrics = shielding_metrics([600.0, 610.0, 520.0, 590.0], [610.0, 600.0, 500.0, 590.0])
    assert metrics["mae_ppm"] == pytest.approx(10)
    assert metrics["rmse_ppm"] == pytest.approx(np.sqrt(600 / 4))
    assert metrics["wasserstein_ppm"] == pytest.approx(5)  # 520 590 600 610 against 500 590 600 610
    assert metrics["kolmogorov_smirnov"] == pytest.approx(0.25)
    assert metrics["num_atoms"] == 4
    assert metrics["skewness"] < 0 and metrics["target_skewness"] < 0


def test_permuted_atoms_have_errors_but_one_distribution():
    target = np.random.default_rng(0).normal(600, 40, 500)
    metrics = shielding_metrics(np.roll(target, 1), target)
    assert metrics["rmse_ppm"] > 40 and metrics["mae_ppm"] > 30
    assert metrics["wasserstein_ppm"] == pytest.approx(0, abs=1e-9) and metrics["kolmogorov_smirnov"] == 0
    assert metrics["peak_ppm"] == metrics["target_peak_ppm"]


def test_peak_of_a_skewed_distribution():
    """The mode of a generalised logistic distribution is loc + scale log c, far to the right of its mean."""
    values = genlogistic.rvs(0.3, 615, 10, size=5000, random_state=np.random.default_rng(1))
    mode = 615 + 10 * np.log(0.3)
    assert values.mean() < mode - 10
    assert peak_position(values) == pytest.approx(mode, abs=5)
    assert peak_position([600.0] * 9) == 600.0
    assert np.isnan(shielding_metrics([600.0] * 9, [600.0] * 9)["skewness"])


def test_wrong_input():
    with pytest.raises(InputError, match="no atoms"):
        shielding_metrics([], [])
    with pytest.raises(ValueError, match="of one shape"):
        shielding_metrics([1.0], [1.0, 2.0])
