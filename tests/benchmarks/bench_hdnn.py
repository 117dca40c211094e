"""HDNN, DART and SmoothDART on the same clusters: symmetry functions, energies from positions, an epoch."""

import pytest
import torch
from torch.nn.functional import l1_loss

from pyg_clusters.datasets.training_data import ClusterBatches
from pyg_clusters.inference import Predictor
from pyg_clusters.models import DART, HDNN, SmoothDART
from pyg_clusters.training import AdamWWithSGD

pytest.importorskip("torchani")

SIZE = 52
CLUSTERS = 128
TORCHANI_CLUSTERS = 32
TRAINING_CLUSTERS = 256
BATCH = 32
SMOOTH_RADII = tuple(round(2.3 + 0.15 * number, 2) for number in range(8))
"""Those of the recipe smooth_dart_gallium.yaml."""


@pytest.fixture(scope="module")
def of_one_size(minima):
    """``z``, ``pos``, ``ptr`` of clusters of one size."""
    chosen = (minima.sizes == SIZE).nonzero().flatten()[:CLUSTERS].tolist()
    data = ClusterBatches(minima)[chosen]
    return data.z, data.pos, data.ptr


def test_symmetry_functions(of_one_size, least_seconds, capsys):
    z, pos, ptr = of_one_size
    functions = HDNN().functions
    computer = functions.computer()
    positions = pos.view(-1, SIZE, 3)[:TORCHANI_CLUSTERS]
    element = torch.zeros(positions.shape[:2], dtype=torch.long)

    @torch.no_grad()
    def baseline():
        return torch.cat([computer(element[:1], one[None]) for one in positions]).flatten(0, 1)

    @torch.no_grad()
    def ours():
        return functions.compute(z, pos, ptr)

    torch.testing.assert_close(ours()[: TORCHANI_CLUSTERS * SIZE], baseline(), rtol=1e-4, atol=1e-4)
    seconds = least_seconds(3, ours=ours, baseline=baseline)
    rate, theirs = (ptr.numel() - 1) / seconds["ours"], TORCHANI_CLUSTERS / seconds["baseline"]
    with capsys.disabled():
        print(
            f"\n\nSymmetry functions of clusters of {SIZE} atoms, one thread, least of 3 rounds"
            f"\n  baseline (AEVComputer, timed on {TORCHANI_CLUSTERS})            {theirs:10,.0f} clusters/s"
            f"\n  SymmetryFunctions                            {rate:10,.0f} clusters/s"
            f"\n  ratio                                        {rate / theirs:10.1f}"
        )


def test_energies_from_positions(of_one_size, least_seconds, capsys):
    z, pos, ptr = of_one_size
    torch.manual_seed(0)
    hdnn, dart = Predictor(HDNN(), device="cpu"), Predictor(DART(), device="cpu")
    smooth = Predictor(SmoothDART(descriptor_radii=SMOOTH_RADII, degree=7, hidden_channels=96), device="cpu")
    seconds = least_seconds(
        3, ours=lambda: hdnn(z, pos, ptr), dart=lambda: dart(z, pos, ptr), smooth=lambda: smooth(z, pos, ptr)
    )
    of_hdnn, of_dart, of_smooth = ((ptr.numel() - 1) / seconds[key] for key in ("ours", "dart", "smooth"))
    with capsys.disabled():
        print(
            f"\n\nEnergies from positions of clusters of {SIZE} atoms, one thread, least of 3 rounds"
            f"\n  DART                                         {of_dart:10,.0f} clusters/s"
            f"\n  SmoothDART                                   {of_smooth:10,.0f} clusters/s"
            f"\n  HDNN                                         {of_hdnn:10,.0f} clusters/s"
            f"\n  ratio of HDNN to DART                        {of_hdnn / of_dart:10.3f}"
            f"\n  ratio of SmoothDART to HDNN                  {of_smooth / of_hdnn:10.1f}"
        )


def test_epoch(minima, least_seconds, capsys):
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(minima), generator=generator)[:TRAINING_CLUSTERS].tolist()
    data = ClusterBatches(minima)
    batches = [data[chosen[first : first + BATCH]] for first in range(0, TRAINING_CLUSTERS, BATCH)]
    torch.manual_seed(0)
    hdnn, dart = HDNN(), DART()
    with torch.no_grad():
        for batch in batches:
            batch.symmetry_functions = hdnn.functions.compute(batch.z, batch.pos, batch.ptr)

    of_hdnn = epoch(hdnn, AdamWWithSGD(hdnn.parameters()), batches, ["symmetry_functions"])
    of_dart = epoch(dart, torch.optim.Adam(dart.parameters()), batches, [])
    seconds = least_seconds(3, ours=of_hdnn, dart=of_dart)
    with capsys.disabled():
        print(
            f"\n\nEpoch of {TRAINING_CLUSTERS} clusters of 31 to 70 atoms, batches of {BATCH}, one thread, least of 3 "
            "rounds"
            f"\n  DART, from positions                         {seconds['dart']:10.2f} s"
            f"\n  HDNN, stored symmetry functions              {seconds['ours']:10.2f} s"
            f"\n  ratio                                        {seconds['ours'] / seconds['dart']:10.2f}"
        )


def epoch(model, optimizer, batches, keys):
    def run():
        for batch in batches:
            optimizer.zero_grad()
            energy = model(batch.z, batch.pos, batch.batch, **{key: batch[key] for key in keys})
            l1_loss(energy, batch.y).backward()
            optimizer.step()

    return run
