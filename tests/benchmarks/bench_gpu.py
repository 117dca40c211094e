"""Energies from positions in the memory of a GPU."""

import pytest
import torch
from bench_inference import SIZE, interaction_products
from published import PublishedDART, published_energies

from pyg_clusters.inference import Predictor
from pyg_clusters.inference.predictor import ATOMS_AT_ONCE_ON_GPU
from pyg_clusters.models import load_model
from pyg_clusters.models.fast_dart import TabulatedDART
from pyg_clusters.units import KCAL_PER_MOL

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

CLUSTERS = 1 << 16
BASELINE_CLUSTERS = 2048


def test_energies_from_positions_on_a_gpu(minima, least_seconds, capsys):
    of_size = (minima.sizes == SIZE).nonzero().flatten().tolist()
    one = torch.stack([minima[number].pos for number in of_size])
    pos = one.repeat(-(-CLUSTERS // len(one)), 1, 1)[:CLUSTERS].cuda()
    z = torch.full((CLUSTERS, SIZE), 31, device="cuda")
    ptr = (torch.arange(BASELINE_CLUSTERS + 1) * SIZE).cuda()
    model = load_model("gallium").cuda()
    single, half = TabulatedDART(model), TabulatedDART(model, half=True)
    from_host = Predictor(model, half=True)
    z_host, pos_host = z.cpu(), pos.cpu()
    published = PublishedDART(model).cuda()

    def in_parts(energies, at_once=8192):
        return torch.cat([energies(z[first : first + at_once], pos[first : first + at_once]) for first in parts])

    parts = range(0, CLUSTERS, 8192)

    @torch.no_grad()
    def baseline():
        return published_energies(
            published, z[:BASELINE_CLUSTERS].flatten(), pos[:BASELINE_CLUSTERS].flatten(0, 1), ptr
        )

    expected = baseline()
    errors = {}
    for name, energies in {"single": single, "half": half}.items():
        found = in_parts(energies)[:BASELINE_CLUSTERS]
        errors[name] = float((found - expected).abs().max()) * KCAL_PER_MOL / SIZE

    def waited(function):
        def run():
            function()
            torch.cuda.synchronize()

        return run

    functions = {
        "half": lambda: in_parts(half),
        "single": lambda: in_parts(single),
        "from host": lambda: from_host(z_host, pos_host),
        "floor": interaction_products(model, CLUSTERS, ATOMS_AT_ONCE_ON_GPU),
        "baseline": baseline,
    }
    seconds = least_seconds(5, **{name: waited(function) for name, function in functions.items()})
    rates = {name: (BASELINE_CLUSTERS if name == "baseline" else CLUSTERS) / of for name, of in seconds.items()}
    with capsys.disabled():
        print(
            f"\n\nEnergies of {CLUSTERS} clusters of {SIZE} atoms on {torch.cuda.get_device_name()}, least of 5 rounds"
            f"\n  baseline (published algorithm, {BASELINE_CLUSTERS} clusters)   {rates['baseline']:12,.0f} clusters/s"
            f"\n  single precision, positions on the GPU      {rates['single']:12,.0f} clusters/s"
            f"\n  half precision, positions on the GPU        {rates['half']:12,.0f} clusters/s"
            f"\n  half precision, positions in host memory    {rates['from host']:12,.0f} clusters/s"
            f"\n  floor (products in single precision)        {rates['floor']:12,.0f} clusters/s"
            f"\n  largest error in kcal/mol per atom           {errors['single']:.5f} single, {errors['half']:.5f} half"
        )
