"""NodeSchNet beside PyG's SchNet, fed the same edges: a training step and inference on sodium clusters."""

import numpy as np
import pytest
import torch
from torch_geometric.nn import SchNet
from torch_geometric.utils import scatter

from pyg_clusters.geometry import ptr_to_batch, radius_pairs
from pyg_clusters.inference import Predictor
from pyg_clusters.models import NodeSchNet
from pyg_clusters.structures import sblda

CLUSTERS = 256
TRAINING_CLUSTERS = 100
SIZES = (14, 40)
ROUNDS = 9


@pytest.fixture(scope="module")
def clusters():
    """``z``, ``pos``, ``ptr`` of S-BLDA clusters."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(SIZES[0], SIZES[1] + 1, CLUSTERS)
    pos = np.concatenate([sblda(int(size), rng=rng) for size in sizes])
    ptr = torch.from_numpy(np.cumsum([0, *sizes]))
    return torch.full((len(pos),), 11), torch.from_numpy(pos).float(), ptr


def models(edge_index, edge_weight) -> tuple[NodeSchNet, SchNet]:
    """The two with the same weights; PyG's is handed its edges."""
    torch.manual_seed(0)
    ours = NodeSchNet()
    pooled = SchNet(
        num_interactions=2, num_gaussians=25, cutoff=6.0, interaction_graph=lambda *_: (edge_index, edge_weight)
    )
    own = {key: value for key, value in ours.state_dict().items() if not key.startswith(("scale.", "domain."))}
    missing = pooled.load_state_dict(own, strict=False).missing_keys
    assert all(".conv.nn." in key for key in missing)  # the second name of the same weights
    return ours, pooled


def test_inference(clusters, least_seconds, capsys):
    z, pos, ptr = clusters
    batch = ptr_to_batch(ptr)
    edge_index, edge_weight = radius_pairs(pos, ptr, 6.0)
    model, pooled = models(edge_index, edge_weight)
    predict = Predictor(model, device="cpu")

    @torch.no_grad()
    def ours():
        return model(z, None, batch, edge_index=edge_index, edge_weight=edge_weight)

    @torch.no_grad()
    def baseline():
        return pooled(z, pos, batch).flatten()

    torch.testing.assert_close(scatter(ours(), batch), baseline(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(predict(z, pos, ptr).shielding, ours(), rtol=1e-5, atol=1e-5)
    seconds = least_seconds(ROUNDS, ours=ours, baseline=baseline, predictor=lambda: predict(z, pos, ptr))
    rate = {name: CLUSTERS / least for name, least in seconds.items()}
    with capsys.disabled():
        print(
            f"\n\nShieldings of {CLUSTERS} clusters of {SIZES[0]} to {SIZES[1]} atoms, one thread, "
            f"least of {ROUNDS} rounds"
            f"\n  baseline (PyG's SchNet, given its edges)     {rate['baseline']:10,.0f} clusters/s"
            f"\n  NodeSchNet, given the same edges             {rate['ours']:10,.0f} clusters/s"
            f"\n  ratio                                        {rate['ours'] / rate['baseline']:10.1f}"
            f"\n  Predictor, from positions                    {rate['predictor']:10,.0f} clusters/s"
            f"\n  ratio                                        {rate['predictor'] / rate['baseline']:10.1f}"
        )


def test_training_step(clusters, least_seconds, capsys):
    z, pos, ptr = clusters
    ptr = ptr[: TRAINING_CLUSTERS + 1]
    z, pos, batch = z[: ptr[-1]], pos[: ptr[-1]], ptr_to_batch(ptr)
    edge_index, edge_weight = radius_pairs(pos, ptr, 6.0)
    model, pooled = models(edge_index, edge_weight)

    def our_loss():
        values = model(z, None, batch, edge_index=edge_index, edge_weight=edge_weight)
        return scatter(values, batch).square().mean()

    def their_loss():
        return pooled(z, pos, batch).square().mean()

    check_equal(our_loss(), model, their_loss(), pooled)
    seconds = least_seconds(ROUNDS, ours=step(our_loss, model), baseline=step(their_loss, pooled))
    with capsys.disabled():
        print(
            f"\n\nTraining step (Adam) on {TRAINING_CLUSTERS} clusters of {SIZES[0]} to {SIZES[1]} atoms, one thread, "
            f"least of {ROUNDS} rounds"
            f"\n  baseline (PyG's SchNet, given its edges)     {1e3 * seconds['baseline']:10,.1f} ms"
            f"\n  NodeSchNet, given the same edges             {1e3 * seconds['ours']:10,.1f} ms"
            f"\n  ratio                                        {seconds['baseline'] / seconds['ours']:10.1f}"
        )


def check_equal(our_loss, model, their_loss, pooled):
    """Loss and gradients, to 1e-5 and 1e-4 relative."""
    torch.testing.assert_close(our_loss, their_loss, rtol=1e-5, atol=0)
    our_loss.backward()
    their_loss.backward()
    theirs = dict(pooled.named_parameters())
    for name, parameter in model.named_parameters():
        error = float((parameter.grad - theirs[name].grad).norm() / theirs[name].grad.norm())
        assert error <= 1e-4, f"gradient of {name}: relative difference {error:.2g}"


def step(loss, model):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return run
