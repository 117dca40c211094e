"""An epoch of training on clusters of mixed sizes on one core."""

import copy

import torch
from published import PublishedDART, published_energies
from torch.nn.functional import l1_loss

from pyg_clusters.datasets.training_data import ClusterBatches
from pyg_clusters.models import DART

CLUSTERS = 512
BASELINE_CLUSTERS = 64
BATCH = 32


def test_epoch(minima, least_seconds, capsys):
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(minima), generator=generator)[:CLUSTERS].tolist()
    batches = ClusterBatches(minima)
    numbers = [chosen[first : first + BATCH] for first in range(0, CLUSTERS, BATCH)]

    torch.manual_seed(0)
    model = DART()
    training_set = batches[chosen]
    model.scale.fit(training_set.z, training_set.ptr, training_set.y)
    published_model = copy.deepcopy(model)
    published = PublishedDART(published_model)

    def our_loss(data):
        return l1_loss(model(data.z, data.pos, data.batch), data.y)

    def published_loss(data):
        return l1_loss(published_energies(published, data.z, data.pos, data.ptr), data.y)

    first = batches[numbers[0]]
    check_equal(our_loss(first), model, published_loss(first), published_model)

    ours = epoch(our_loss, model, batches, numbers)
    baseline = epoch(published_loss, published_model, batches, numbers[: BASELINE_CLUSTERS // BATCH])
    seconds = least_seconds(3, ours=ours, baseline=baseline)
    our_rate, their_rate = CLUSTERS / seconds["ours"], BASELINE_CLUSTERS / seconds["baseline"]
    with capsys.disabled():
        print(
            f"\n\nEpoch of {CLUSTERS} clusters of 31 to 70 atoms, batches of {BATCH}, one thread, least of 3 rounds"
            f"\n  baseline (published algorithm, timed on {BASELINE_CLUSTERS}) {CLUSTERS / their_rate:10.2f} s"
            f"\n  DART                                         {CLUSTERS / our_rate:10.2f} s"
            f"\n  ratio                                        {our_rate / their_rate:10.1f}"
        )


def check_equal(our_loss, model, published_loss, published_model):
    """Loss and gradients of one step, to 1e-4 relative."""
    torch.testing.assert_close(our_loss, published_loss, rtol=1e-4, atol=0)
    gradients = torch.autograd.grad(our_loss, list(model.parameters()))
    expected = torch.autograd.grad(published_loss, list(published_model.parameters()))
    for (name, _), found, wanted in zip(model.named_parameters(), gradients, expected, strict=True):
        error = float((found - wanted).norm() / wanted.norm())
        assert error <= 1e-4, f"gradient of {name}: relative difference {error:.2g}"


def epoch(loss, model, batches, numbers):
    """An epoch of training with Adam, from forming the batches to the last step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for clusters in numbers:
            optimizer.zero_grad()
            loss(batches[clusters]).backward()
            optimizer.step()

    return run
