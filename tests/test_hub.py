"""Models in folders of the Hugging Face Hub."""

import json

import pytest
import torch

from pyg_clusters.models import DART, NodeSchNet, SmoothDART
from pyg_clusters.testing import random_clusters

hub = pytest.importorskip("huggingface_hub")


class HubDART(DART, hub.PyTorchModelHubMixin):
    pass


class HubSmoothDART(SmoothDART, hub.PyTorchModelHubMixin):
    pass


class HubNodeSchNet(NodeSchNet, hub.PyTorchModelHubMixin):
    pass


@pytest.mark.parametrize(
    "model",
    [
        HubDART(radii=(3.0, 5.0), hidden_channels=16),
        HubSmoothDART(hidden_channels=16, degree=2, elements=(31, 49)),
        HubNodeSchNet(hidden_channels=16, num_filters=16),
    ],
    ids=lambda model: type(model).__name__,
)
def test_saved_and_loaded_with_scale_and_domain(model, tmp_path):
    """The folder contains JSON and safetensors, and the caller names the class: no code of the folder is run."""
    z, pos, ptr = random_clusters((13, 20), 31, torch.Generator().manual_seed(0))
    pos = pos.float()
    per_atom = isinstance(model, NodeSchNet)
    model.scale.fit(z, ptr, torch.rand(33) + 600 if per_atom else torch.tensor([-30.0, -48.0]))
    model.domain.fit(z, ptr, pos)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    assert "hidden_channels" in json.loads((tmp_path / "config.json").read_text())
    loaded = type(model).from_pretrained(tmp_path)
    assert loaded.domain.size_range == (13, 20)
    torch.testing.assert_close(loaded(z[:13], pos[:13]), model.eval()(z[:13], pos[:13]), rtol=0, atol=0)
