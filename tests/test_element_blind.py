"""Exchanging atoms of two elements changes the prediction, or the model refuses several elements."""

import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from torch import nn
from torch_geometric.data import Data

from pyg_clusters.cli import main
from pyg_clusters.errors import InputError
from pyg_clusters.frames import write_extxyz
from pyg_clusters.geometry import ptr_to_batch
from pyg_clusters.inference import Predictor
from pyg_clusters.models import DART, AlloyDART, Ensemble, LayeredModel, NodeSchNet, SmoothDART
from pyg_clusters.models.checkpoint import load_model
from pyg_clusters.models.contract import is_blind
from pyg_clusters.models.shielding_lasso import ShieldingLasso
from pyg_clusters.structures import ModelCalculator
from pyg_clusters.testing import random_clusters

CU_AU = (29, 79)


def layered(embedding: str, conv: str = "GATv2Conv") -> LayeredModel:
    return LayeredModel(f"torch_geometric.nn.{conv}", num_layers=1, hidden_channels=8, embedding=embedding)


class ZeroHead(nn.Module):
    """A model that distinguishes elements, but whose last layer starts from zero, so that its output is constant."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 1)
        nn.init.zeros_(self.head.weight)

    def forward(self, z, pos, batch):
        raw = self.head(z[:, None].to(self.head.weight.dtype)).squeeze(1)
        return raw.new_zeros(int(batch[-1]) + 1).index_add(0, batch, raw)


@pytest.mark.parametrize(
    ("make", "blind"),
    [
        (DART, True),
        (SmoothDART, True),
        (lambda: Ensemble([DART(), DART()]), True),
        (lambda: layered("tad"), True),
        (lambda: layered("both"), False),
        (lambda: layered("element"), False),
        (lambda: layered("tad", "SchNet"), False),  # a whole model takes the elements itself
        (lambda: SmoothDART(elements=CU_AU), False),
        (lambda: AlloyDART(elements=CU_AU), False),
        (lambda: AlloyDART(elements=CU_AU, radii=(3.3, 5.75), element_networks="shared"), False),
        (lambda: AlloyDART(elements=CU_AU, radii=(3.3, 5.75)), False),
        (NodeSchNet, False),
        (ZeroHead, False),
    ],
)
def test_models_that_distinguish_elements(make, blind):
    torch.manual_seed(0)
    model = make().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert is_blind(model, CU_AU) is blind
    assert model.training and all(value.equal(before[name]) for name, value in model.state_dict().items())


class SinglePrecision(torch.nn.Module):
    """Energies in single precision, whatever that of the model."""

    def __init__(self):
        super().__init__()
        self.charge = torch.nn.Embedding(100, 1)

    def forward(self, z, pos, batch):
        of_atom = self.charge(z).squeeze(1) * pos.norm(dim=1)
        return torch.zeros(int(batch[-1]) + 1).index_add(0, batch, of_atom)


def test_a_model_for_single_precision_only_is_used():
    z, pos, ptr = random_clusters((6, 6), 29, torch.Generator().manual_seed(0))
    z[::2] = 79
    assert Predictor(SinglePrecision())(z, pos, ptr).energy.isfinite().all()


def test_offsets_of_elements_do_not_distinguish_arrangements():
    """Fitted energies per atom of each element do not depend on the arrangement of the elements."""
    model = DART()
    model.scale.fit(
        torch.tensor([29, 79, 79]), torch.tensor([0, 1, 3]), torch.tensor([-1000.0, -40000.0], dtype=torch.double)
    )
    assert is_blind(model, CU_AU)


def test_predictor_and_calculator_refuse():
    z, pos, ptr = random_clusters((6, 6), 29, torch.Generator().manual_seed(0))
    z[::2] = 79
    for model in (DART(), SmoothDART()):
        with pytest.raises(InputError, match=r"DART does not tell elements apart .* Cu, Au .*AlloyDART"):
            Predictor(model)(z, pos, ptr)
        atoms = Atoms(z[:6].numpy(), pos[:6].numpy(), calculator=ModelCalculator(model))
        with pytest.raises(InputError, match="does not tell elements apart"):
            atoms.get_potential_energy()
        assert Predictor(model)(torch.full_like(z, 29), pos, ptr).energy.isfinite().all()
    alloy = Predictor(AlloyDART(elements=CU_AU))
    assert not torch.allclose(alloy(z, pos, ptr).energy, alloy(108 - z, pos, ptr).energy)


def test_lasso_refuses_to_be_fitted():
    z, pos, ptr = random_clusters((6, 6), 11, torch.Generator().manual_seed(0))
    data = Data(z=z, pos=pos, batch=ptr_to_batch(ptr), y=torch.rand(12))
    data.z[0] = 37
    with pytest.raises(InputError, match="there are Na, Rb; use NodeSchNet"):
        ShieldingLasso().fit(data, data)


def test_training_refuses_before_a_folder_is_made(tmp_path, capsys):
    rng = np.random.default_rng(0)
    frames = []
    for number in range(12):
        z, pos, _ = random_clusters((8,), 29, torch.Generator().manual_seed(number))
        z[rng.permutation(8)[:4]] = 79
        frames.append(Atoms(z.numpy(), pos.numpy(), info={"e": float(number), "group": number}))
    write_extxyz(tmp_path / "cuau.extxyz", frames)
    dataset = {"root": str(tmp_path / "root"), "files": [str(tmp_path / "cuau.extxyz")], "target": "e"}
    recipe = {
        "data": {
            "dataset": {"class_path": "pyg_clusters.datasets.ClusterDataset", "init_args": dataset},
            "split": "random",
        },
        "model": {"model": {"class_path": "pyg_clusters.models.DART", "init_args": {}}},
        "trainer": {"max_epochs": 1},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["train", "--config", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")]) == 2
    assert "DART does not tell elements apart" in capsys.readouterr().err
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize("name", ["gallium", "gallium-forces", "gallium-screening", "sodium"])
def test_a_pretrained_model_refuses_other_elements(name):
    """Also if the model is called directly; the message names the elements."""
    model = load_model(name)
    z = torch.tensor([model.domain.atomic_numbers[0]] * 4)
    pos, batch = 2.7 * torch.eye(4, 3), torch.zeros(4, dtype=torch.long)
    assert model(z, pos, batch).isfinite().all()
    z[1:3] = torch.tensor([29, 79])
    with pytest.raises(InputError, match=f"trained on {model.domain.symbols} and not on Cu, Au; train a model"):
        model(z, pos, batch)
