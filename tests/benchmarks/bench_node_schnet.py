"""NodeSchNet, PyG's SchNet and SchNetPack's on the same edges: a training step and inference."""

import numpy as np
import pytest
import torch
from schnets import (
    GET_SCHNETPACK,
    Clusters,
    node_schnet,
    pyg_schnet,
    schnetpack_name,
    schnetpack_schnet,
    sodium_clusters,
)
from torch import nn

from pyg_clusters.inference import Predictor
from pyg_clusters.models import NodeSchNet

CLUSTERS = 256
TRAINING_CLUSTERS = 100
SIZES = (14, 40)
ROUNDS = 9


def clusters(number: int) -> Clusters:
    rng = np.random.default_rng(0)
    return sodium_clusters(rng.integers(SIZES[0], SIZES[1] + 1, number), rng)


@pytest.fixture
def model() -> NodeSchNet:
    torch.manual_seed(0)
    return NodeSchNet()


def test_inference(model, least_seconds, capsys):
    given = clusters(CLUSTERS)
    predict = Predictor(model, device="cpu")
    runs = {
        "ours": node_schnet(model, given),
        "PyG": pyg_schnet(model, given)[1],
        "predictor": lambda: predict(given.z, given.pos, given.ptr),
    }
    if (theirs := schnetpack_schnet(model, given)) is not None:
        runs["SchNetPack"] = theirs[1]

    with torch.no_grad():
        for name in runs.keys() - {"ours", "predictor"}:
            torch.testing.assert_close(runs["ours"](), runs[name](), rtol=1e-5, atol=1e-5)
        found = predict(given.z, given.pos, given.ptr).shielding
        torch.testing.assert_close(found, model(given.z, given.pos, given.batch), rtol=1e-5, atol=1e-5)
        seconds = least_seconds(ROUNDS, **runs)
    rate = {name: CLUSTERS / least for name, least in seconds.items()}
    with capsys.disabled():
        print(
            f"\n\nShieldings of {CLUSTERS} clusters of {SIZES[0]} to {SIZES[1]} atoms, one thread, "
            f"least of {ROUNDS} rounds"
            f"\n  NodeSchNet, given the pairs                  {rate['ours']:10,.0f} clusters/s"
            f"\n  Predictor, from positions                    {rate['predictor']:10,.0f} clusters/s"
        )
        for name in ("PyG", "SchNetPack"):
            if name not in rate:
                print(f"  {GET_SCHNETPACK}")
                continue
            print(
                f"  {name + ', given the same pairs':<44} {rate[name]:10,.0f} clusters/s"
                f"\n    ratio of NodeSchNet to it                  {rate['ours'] / rate[name]:10.1f}"
                f"\n    ratio of the Predictor to it               {rate['predictor'] / rate[name]:10.1f}"
            )


def test_training_step(model, least_seconds, capsys):
    given = clusters(TRAINING_CLUSTERS)
    ours = node_schnet(model, given)
    others = {"PyG": pyg_schnet(model, given)}
    check_equal(model, ours, *others["PyG"])
    if (theirs := schnetpack_schnet(model, given)) is not None:
        others["SchNetPack"] = theirs
        check_equal(model, ours, *theirs, name_of=schnetpack_name)

    runs = {name: step(sums, other) for name, (other, sums) in others.items()}
    seconds = least_seconds(ROUNDS, ours=step(ours, model), **runs)
    with capsys.disabled():
        print(
            f"\n\nTraining step (Adam) on {TRAINING_CLUSTERS} clusters of {SIZES[0]} to {SIZES[1]} atoms, one thread, "
            f"least of {ROUNDS} rounds"
            f"\n  NodeSchNet, given the pairs                  {1e3 * seconds['ours']:10,.1f} ms"
        )
        for name in ("PyG", "SchNetPack"):
            if name not in seconds:
                print(f"  {GET_SCHNETPACK}")
                continue
            print(
                f"  {name + ', given the same pairs':<44} {1e3 * seconds[name]:10,.1f} ms"
                f"\n    ratio                                      {seconds[name] / seconds['ours']:10.1f}"
            )


def check_equal(model, sums, other, their_sums, name_of=str):
    """Loss and gradients, to 1e-5 and 1e-4 relative; ``name_of`` maps names of our weights to theirs."""
    model.zero_grad()
    losses = [function().square().mean() for function in (sums, their_sums)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)
    for loss in losses:
        loss.backward()
    theirs = dict(other.named_parameters())
    for name, parameter in model.named_parameters():
        grad = theirs[name_of(name)].grad
        error = float((parameter.grad - grad).norm() / grad.norm())
        assert error <= 1e-4, f"gradient of {name}: relative difference {error:.2g}"


def step(sums, model: nn.Module):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        optimizer.zero_grad()
        sums().square().mean().backward()
        optimizer.step()

    return run
