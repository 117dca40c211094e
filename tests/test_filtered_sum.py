import pytest
import torch

from pyg_clusters.nn import Interpolation, filtered_sum


def at(between: Interpolation, values: torch.Tensor) -> torch.Tensor:
    """Interpolated values of a function with one channel."""
    return (between.weights * values[between.index]).sum(1)


@pytest.fixture
def graph(generator):
    """Features, filters at nodes, pairs, and the interpolation between the nodes, with a factor."""
    distance = 5.0 * torch.rand(23, generator=generator, dtype=torch.double)
    between = Interpolation(distance, 5.0, 12, factor=1 - distance / 5.0)
    x = torch.randn(7, 4, generator=generator, dtype=torch.double)
    filters = torch.randn(between.nodes.numel(), 4, generator=generator, dtype=torch.double)
    return x, filters, torch.randint(0, 7, (2, 23), generator=generator), between


def test_polynomials_to_the_fifth_degree_are_exact():
    places = torch.linspace(0.0, 4.0, 33, dtype=torch.double)
    between = Interpolation(places, 4.0, 7)
    coefficients = [1.0, -2.0, 0.5, 0.25, -0.1, 0.02]

    def polynomial(x):
        return sum(c * x**k for k, c in enumerate(coefficients))

    torch.testing.assert_close(at(between, polynomial(between.nodes)), polynomial(places), rtol=1e-11, atol=1e-11)
    assert not torch.allclose(at(between, between.nodes**6), places**6, rtol=1e-6)


def test_error_falls_with_the_sixth_power_of_the_spacing():
    places = torch.linspace(0.0, 6.0, 2001, dtype=torch.double)
    errors = []
    for intervals in (24, 48, 96):
        between = Interpolation(places, 6.0, intervals)
        errors.append(float((at(between, torch.sin(3 * between.nodes)) - torch.sin(3 * places)).abs().max()))
    assert errors[0] / errors[1] == pytest.approx(64, rel=0.15)
    assert errors[1] / errors[2] == pytest.approx(64, rel=0.15)


def test_factor_and_derivative():
    places = torch.linspace(0.1, 5.9, 50, dtype=torch.double, requires_grad=True)
    between = Interpolation(places, 6.0, 200, factor=places.square())
    values = at(between, between.nodes.sin())
    torch.testing.assert_close(values, places.square() * places.sin(), rtol=1e-9, atol=1e-9)
    (slope,) = torch.autograd.grad(values.sum(), places)
    expected = 2 * places * places.sin() + places.square() * places.cos()
    torch.testing.assert_close(slope, expected, rtol=1e-7, atol=1e-7)


def test_positions_at_the_ends_and_not_a_number():
    between = Interpolation(torch.tensor([0.0, 3.0, float("nan")]), 3.0, 10)
    values = at(between, between.nodes + 1)
    torch.testing.assert_close(values[:2], torch.tensor([1.0, 4.0]))
    assert values[2].isnan()


def test_sum_is_that_of_its_definition(graph):
    x, filters, edge_index, between = graph
    expected = torch.zeros_like(x)
    for pair, (source, target) in enumerate(edge_index.T.tolist()):
        for node, weight in zip(between.index[pair], between.weights[pair], strict=True):
            expected[target] += weight * filters[node] * x[source]
    torch.testing.assert_close(filtered_sum(x, filters, edge_index, between), expected)


@pytest.mark.parametrize("at_once", [1, 5, 100])
def test_gradients(graph, at_once, monkeypatch):
    monkeypatch.setitem(filtered_sum.__globals__["PAIRS_AT_ONCE"], "cpu", at_once)
    x, filters, edge_index, between = graph

    def of(x, filters, weights):
        between.weights = weights
        return filtered_sum(x, filters, edge_index, between)

    inputs = [value.clone().requires_grad_() for value in (x, filters, between.weights)]
    assert torch.autograd.gradcheck(of, inputs)


def test_no_pairs(graph):
    x, filters, edge_index, _ = graph
    x, filters = x.requires_grad_(), filters.requires_grad_()
    nothing = Interpolation(torch.zeros(0, dtype=torch.double), 5.0, 12)
    y = filtered_sum(x, filters, edge_index[:, :0], nothing)
    assert y.shape == x.shape and not y.any()
    y.sum().backward()
    assert not x.grad.any() and not filters.grad.any()
