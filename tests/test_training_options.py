"""Mixed precision and ``torch.compile`` as options of a training run."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from pyg_clusters.cli import main
from pyg_clusters.datasets import ClusterDataset
from pyg_clusters.errors import InputError
from pyg_clusters.frames import FrameBlock, write_store
from pyg_clusters.inference import Predictor
from pyg_clusters.models import DART, NodeSchNet, SmoothDART, load_model
from pyg_clusters.models.checkpoint import save_model
from pyg_clusters.nn import EnergyScale, ShieldingScale
from pyg_clusters.testing import random_clusters
from pyg_clusters.training import ClusterDataModule, EnergyTraining, ForceTraining

QUIET = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> ClusterDataset:
    """40 clusters of 5 to 11 atoms with springs of 0.1 eV/Å² between all atoms, and their forces."""
    generator = torch.Generator().manual_seed(1)
    sizes = tuple(torch.randint(5, 12, (40,), generator=generator).tolist())
    z, pos, ptr = random_clusters(sizes, 31, generator)
    energies, forces = [], []
    for start, end in zip(ptr, ptr[1:], strict=False):
        atoms = pos[start:end].double().requires_grad_()
        energy = 0.05 * (atoms[:, None] - atoms).square().sum() / 2
        forces.append(-torch.autograd.grad(energy, atoms)[0])
        energies.append(energy.detach())
    block = FrameBlock(
        file="springs",
        number=torch.arange(40).numpy(),
        z=z.numpy(),
        pos=pos.double().numpy(),
        ptr=ptr.numpy(),
        cell=np.zeros((40, 3, 3)),
        pbc=np.zeros((40, 3), dtype=bool),
        properties={"energy": torch.stack(energies).numpy()},
        atom_properties={"forces": torch.cat(forces).numpy()},
    )
    path = tmp_path_factory.mktemp("springs") / "springs.h5"
    write_store(path, [block])
    return ClusterDataset(path.parent, path, forces=True)


def train(module: EnergyTraining, dataset: ClusterDataset, **options) -> dict[str, float]:
    trainer = pl.Trainer(max_epochs=3, accelerator="cpu", inference_mode=False, **QUIET, **options)
    trainer.fit(module, ClusterDataModule(dataset, "random", batch_size=8))
    return {key: float(value) for key, value in trainer.callback_metrics.items()}


def smooth() -> SmoothDART:
    torch.manual_seed(0)
    return SmoothDART(degree=2, hidden_channels=16, interaction_channels=(16,))


@pytest.mark.parametrize("kind", [EnergyTraining, ForceTraining])
def test_mixed_precision_trains_energies_and_forces(dataset, kind):
    """The rounding of bfloat16 (8 bits) is small compared with the change in three epochs; weights stay single."""
    single, mixed = kind(smooth()), kind(smooth())
    before = {name: value.clone() for name, value in single.model.state_dict().items()}
    metrics = [train(single, dataset), train(mixed, dataset, precision="bf16-mixed")]
    for key in metrics[0].keys() & {"val_mae", "val_rmse", "val_force_mae"}:
        assert metrics[1][key] == pytest.approx(metrics[0][key], rel=0.05), key
        assert metrics[1][key] != metrics[0][key]
    for name, weight in mixed.model.named_parameters():
        assert weight.dtype == torch.float32
        moved = (single.model.state_dict()[name] - before[name]).norm()
        assert (weight - single.model.state_dict()[name]).norm() < 0.5 * moved, name


@pytest.mark.parametrize("kind", [EnergyTraining, ForceTraining])
def test_a_model_is_trained_in_training_mode(dataset, kind):
    """Whether or not it has predicted before, which sets evaluation mode."""
    metrics = []
    for predicts in (False, True):
        model = smooth()
        if predicts:
            Predictor(model)
        metrics.append(train(kind(model), dataset))
        assert model.inputs.fitted and model.training
    assert metrics[0] == metrics[1]


def test_a_model_without_forces_is_refused_before_training(dataset):
    with pytest.raises(InputError, match="DART has no forces"):
        ForceTraining(DART()).check(ClusterDataModule(dataset, "random"))


def test_scales_keep_single_precision_under_mixed():
    """Sums over atoms in bfloat16, with a precision of 1/256, would have errors of several kcal/mol or ppm."""
    raw = torch.tensor([1.0, -0.5], dtype=torch.bfloat16)
    energies, shieldings = EnergyScale(), ShieldingScale()
    energies.fit(torch.tensor([31, 31]), torch.tensor([0, 2]), torch.tensor([-5.2]))
    shieldings.mean.fill_(611.3)
    for found, expected in ((energies(raw, torch.tensor([31, 31])), -2.6 + raw.float() / 23.060548),):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected)
    assert shieldings(raw).tolist() == pytest.approx([612.3, 610.8], abs=1e-3)


@pytest.fixture
def quick_compilation(monkeypatch):
    """Trace models with ``torch.compile``, but run the graph as it is: generating code takes a minute."""
    compiled = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: compiled(self, backend="eager", **options))
    yield
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore")  # the tracing epochs
@pytest.mark.slow
def test_compiled_training_equals_plain_training(dataset, quick_compilation, tmp_path):
    torch.manual_seed(0)
    plain = EnergyTraining(DART(hidden_channels=16))
    torch.manual_seed(0)
    compiled = EnergyTraining(DART(hidden_channels=16), compile=True, average_decay=0.9)
    metrics = [train(plain, dataset), train(compiled, dataset)]
    assert compiled.model._compiled_call_impl is not None
    assert metrics[1]["train_mae"] == pytest.approx(metrics[0]["train_mae"], rel=1e-5)
    state = compiled.state_dict()
    assert {name for name in state if name.startswith("model.")} == {n for n in plain.state_dict() if "model." in n}
    for name, weight in plain.model.state_dict().items():
        torch.testing.assert_close(compiled.model.state_dict()[name], weight, rtol=1e-4, atol=1e-6)
    for number, model in enumerate((compiled.model, compiled.evaluated_model)):
        save_model(model, tmp_path / str(number))
        assert load_model(tmp_path / str(number)).state_dict().keys() == plain.model.state_dict().keys()


@pytest.mark.slow
@pytest.mark.parametrize("model", [DART(), NodeSchNet()])
@pytest.mark.filterwarnings("ignore")
def test_compiled_models_equal_plain_ones(model):
    z, pos, ptr = random_clusters((31, 40, 52), 31, torch.Generator().manual_seed(0))
    batch = torch.repeat_interleave(ptr.diff())
    expected = model(z, pos.float(), batch)
    model.compile(dynamic=True)
    torch.testing.assert_close(model(z, pos.float(), batch), expected, rtol=1e-4, atol=1e-4)


def test_a_missing_compiler_is_reported_in_one_line(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CXX", "no-such-compiler")
    store = dataset.files[0]
    arguments = ["train", "--data.dataset", "ClusterDataset", "--data.dataset.init_args.files", f"[{store}]"]
    arguments += ["--data.dataset.init_args.root", str(tmp_path), "--data.split", "random", "--model.compile", "true"]
    assert main([*arguments, "--model.model", "DART", "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "needs a C++ compiler, and there is no no-such-compiler" in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()
