"""Energies from positions: many clusters of one size on one core."""

import torch
from published import PublishedDART, published_energies

from pyg_clusters.inference import Predictor
from pyg_clusters.inference.predictor import ATOMS_AT_ONCE
from pyg_clusters.models import DART

CLUSTERS = 1024
SIZE = 52
BASELINE_CLUSTERS = 64
BASELINE_BATCH = 32


def test_energies_from_positions(minima, least_seconds, capsys):
    of_size = (minima.sizes == SIZE).nonzero().flatten().tolist()
    chosen = (of_size * CLUSTERS)[:CLUSTERS]
    pos = torch.cat([minima[number].pos for number in chosen])
    z = torch.full((CLUSTERS * SIZE,), 31)
    ptr = torch.arange(CLUSTERS + 1) * SIZE

    torch.manual_seed(0)
    model = DART()
    predict = Predictor(model, device="cpu")
    published = PublishedDART(model)
    products = interaction_products(model, CLUSTERS)

    @torch.no_grad()
    def baseline():
        energies = []
        for first in range(0, BASELINE_CLUSTERS, BASELINE_BATCH):
            atoms = slice(first * SIZE, (first + BASELINE_BATCH) * SIZE)
            energies.append(published_energies(published, z[atoms], pos[atoms], ptr[: BASELINE_BATCH + 1]))
        return torch.cat(energies)

    expected = baseline()
    found = predict(z, pos, ptr).energy[:BASELINE_CLUSTERS]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)

    seconds = least_seconds(5, ours=lambda: predict(z, pos, ptr), floor=products, baseline=baseline)
    ours, floor = CLUSTERS / seconds["ours"], CLUSTERS / seconds["floor"]
    theirs = BASELINE_CLUSTERS / seconds["baseline"]
    with capsys.disabled():
        print(
            f"\n\nEnergies from positions of {CLUSTERS} clusters of {SIZE} atoms, one thread, least of 5 rounds"
            f"\n  baseline (published algorithm, timed on {BASELINE_CLUSTERS}) {theirs:10,.0f} clusters/s"
            f"\n  Predictor                                    {ours:10,.0f} clusters/s"
            f"\n  ratio                                        {ours / theirs:10.1f}"
            f"\n  floor (products of the interaction network)  {floor:10,.0f} clusters/s"
            f"\n  fraction of the floor                        {ours / floor:10.0%}"
        )


def interaction_products(model: DART, clusters: int, atoms_at_once: int = ATOMS_AT_ONCE):
    """Only the matrix products of the interaction network for all atoms, in the batches of the Predictor."""
    weights = [layer.weight.detach().T for layer in model.interaction]
    batch = atoms_at_once // SIZE * SIZE
    batches = [min(batch, clusters * SIZE - first) for first in range(0, clusters * SIZE, batch)]
    x = torch.rand(batch, weights[0].size(0), device=weights[0].device)
    buffers = [x.new_empty(batch, weight.size(1)) for weight in weights]

    def run():
        for rows in batches:
            y = x[:rows]
            for weight, buffer in zip(weights, buffers, strict=True):
                y = torch.mm(y, weight, out=buffer[:rows])

    return run
