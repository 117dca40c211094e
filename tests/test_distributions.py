import numpy as np
import pytest
import torch
from scipy.stats import genlogistic, norm

from pyg_clusters.errors import InputError
from pyg_clusters.nn.shielding_scale import GeneralizedLogistic

SHAPES = [0.05, 0.3, 1.0, 7.0]


@pytest.mark.parametrize("c", SHAPES)
def test_against_scipy_where_scipy_is_exact(c):
    t = GeneralizedLogistic(c, 600.0, 8.0)
    values = np.linspace(560, 640, 81)
    expected = norm.ppf(genlogistic.cdf(values, float(t.c), 600, 8))
    np.testing.assert_allclose(t(torch.tensor(values)), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("c", SHAPES)
def test_both_tails_are_finite_and_inverted(c):
    t = GeneralizedLogistic(c, 615.0, 10.0)
    values = torch.tensor([-1e6, 0, 100, 400, 600, 615, 640, 700, 2000, 1e6], dtype=torch.double, requires_grad=True)
    quantiles = t(values)
    assert quantiles.isfinite().all() and (quantiles.diff() > 0).all()
    torch.testing.assert_close(t.inverse(quantiles), values, rtol=1e-12, atol=1e-9)
    (slopes,) = torch.autograd.grad(quantiles.sum(), values)
    assert slopes.isfinite().all() and (slopes > 0).all()
    far = torch.tensor([-1e4, -38, -8, 0, 7.9, 8, 8.1, 38, 1e4], dtype=torch.double)
    assert t.inverse(far).isfinite().all()
    torch.testing.assert_close(t(t.inverse(far)), far, rtol=1e-12, atol=1e-12)


def test_symmetric_logistic():
    t = GeneralizedLogistic()
    values = torch.tensor([0.0, 3.0, 30.0, 300.0], dtype=torch.double)
    torch.testing.assert_close(t(-values), -t(values), rtol=1e-12, atol=1e-14)
    assert t(torch.zeros(1)).abs() < 1e-7


def test_derivatives():
    t = GeneralizedLogistic(0.25, 600.0, 8.0)
    values = torch.tensor([300.0, 500, 600, 650, 700], dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(t, values)
    quantiles = torch.tensor([-9.0, -1, 0, 1, 7, 9], dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(t.inverse, quantiles)


def test_types_and_shapes_are_kept():
    t = GeneralizedLogistic(0.25, 600.0, 8.0)
    values = torch.tensor([[414.0, 600.0], [639.0, 614.0]])
    assert t(values).dtype == torch.float and t(values).shape == (2, 2)
    torch.testing.assert_close(t.inverse(t(values)), values, rtol=1e-6, atol=0)


def test_fit_finds_the_parameters_of_a_sample():
    values = genlogistic.rvs(0.3, 615, 10, size=4000, random_state=np.random.default_rng(0))
    t = GeneralizedLogistic.fit(torch.from_numpy(values))
    assert float(t.c) == pytest.approx(0.3, rel=0.1)
    assert float(t.loc) == pytest.approx(615, abs=1.5) and float(t.scale) == pytest.approx(10, rel=0.1)
    quantiles = t(torch.from_numpy(values))
    assert abs(quantiles.mean()) < 0.05 and quantiles.std() == pytest.approx(1, abs=0.05)
    shifted = GeneralizedLogistic.fit(1000 + 2 * values)  # the fit follows the unit
    assert float(shifted.loc) == pytest.approx(1000 + 2 * float(t.loc), rel=1e-5)
    assert float(shifted.scale) == pytest.approx(2 * float(t.scale), rel=1e-4)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full(20, 600.0), "all 20 values are 600"),
        ([600.1] * 49 + [600.1 + 1e-9], "all 50 values are 600.1"),
        (np.arange(9.0), "at least 10 values are needed to fit a distribution, got 9"),
        ([*range(12), float("nan")], "value 12 is nan"),
        ([*range(12), -float("inf")], "value 12 is -inf"),
    ],
)
def test_values_that_cannot_be_fitted(values, words):
    with pytest.raises(InputError, match=words) as caught:
        GeneralizedLogistic.fit(values)
    assert "\n" not in str(caught.value)


def test_parameters_travel_with_the_state():
    t, other = GeneralizedLogistic(0.25, 600.0, 8.0), GeneralizedLogistic()
    other.load_state_dict(t.state_dict())
    assert str(other) == str(t) == "GeneralizedLogistic(c=0.25, loc=600, scale=8)"
    with pytest.raises(ValueError, match="c=0"):
        GeneralizedLogistic(c=0)
