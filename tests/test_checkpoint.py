import json

import pytest
import torch
from torch import nn

from pyg_clusters.errors import InputError
from pyg_clusters.geometry import ptr_to_batch
from pyg_clusters.models import DART, Ensemble
from pyg_clusters.models.checkpoint import load_model, model_folder, save_model
from pyg_clusters.testing import random_clusters


class KeepsNothing(nn.Module):
    def __init__(self, width: int = 3):
        super().__init__()
        self.layer = nn.Linear(width, 1)


class KeepsAnObject(nn.Module):
    def __init__(self, width: object = None):
        super().__init__()
        self.width = width
        self.layer = nn.Linear(3, 1)


@pytest.fixture
def model() -> DART:
    """A model with an offset and a domain, as after training."""
    torch.manual_seed(0)
    model = DART(radii=(3.0, 5.0, 7.0), hidden_channels=16, interaction_channels=(8, 4), active_shells=(0, 1, 3))
    z, ptr = torch.full((33,), 31), torch.tensor([0, 13, 33])
    model.scale.fit(z, ptr, torch.tensor([-30.0, -47.0]))
    model.domain.fit(z, ptr)
    return model


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_saved_and_loaded(tmp_path, generator, model, dtype):
    z, pos, ptr = random_clusters((13, 1, 20), 31, generator)
    model = model.to(dtype)
    save_model(model, tmp_path / "run" / "best", notes={"val_mae_kcal_per_mol": 4.2})
    loaded = load_model(tmp_path / "run" / "best")
    assert isinstance(loaded, DART)
    assert not loaded.training
    assert str(loaded) == str(model)
    arguments = z, pos.to(dtype), ptr_to_batch(ptr)
    assert loaded(*arguments).dtype == dtype
    assert loaded(*arguments).equal(model(*arguments))
    assert load_model(tmp_path / "run")(*arguments).equal(model(*arguments))  # the folder of the run does as well
    save_model(torch.compile(model), tmp_path / "compiled")
    assert load_model(tmp_path / "compiled")(*arguments).equal(model(*arguments))


def test_what_is_written(tmp_path, model):
    save_model(model, tmp_path, notes={"epoch": 3})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    assert json.loads((tmp_path / "model.json").read_text()) == {
        "class_path": "pyg_clusters.models.dart.DART",
        "init_args": {
            "radii": [3.0, 5.0, 7.0],
            "hidden_channels": 16,
            "interaction_channels": [8, 4],
            "active_shells": [0, 1, 3],
        },
        "notes": {"epoch": 3},
    }


def test_saving_over_another_model(tmp_path, model):
    save_model(DART(), tmp_path)
    save_model(model, tmp_path)
    assert str(load_model(tmp_path)) == str(model)


@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"", lambda raw: b"\xff" * 100])
def test_corrupted_weights(tmp_path, model, damage):
    save_model(model, tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    assert_refused(tmp_path, r"model\.safetensors: corrupted weights .*; copy or train them again")


def test_weights_of_another_model(tmp_path, model):
    save_model(model, tmp_path)
    configuration = (tmp_path / "model.json").read_text()
    save_model(DART(), tmp_path)
    (tmp_path / "model.json").write_text(configuration)
    assert_refused(tmp_path, "the model cannot be rebuilt: RuntimeError")


def assert_refused(folder, message: str):
    with pytest.raises(InputError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", '{"class_path": "pyg', "\udcff"])
def test_corrupted_configuration(tmp_path, model, text):
    save_model(model, tmp_path)
    (tmp_path / "model.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert_refused(tmp_path, r"model\.json: corrupted .*; copy or train the model again")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([1, 2], r"corrupted \(not a mapping\)"),
        ({"class_path": "pyg_clusters.models.dart.DART"}, "class_path and init_args are missing"),
        (
            {"class_path": "pyg_clusters.models.dart.DUST", "init_args": {}},
            "names pyg_clusters.models.dart.DUST, .* --trust",
        ),
        ({"class_path": "no_such_package.Model", "init_args": {}}, "names no_such_package.Model, .* add --trust"),
        ({"class_path": "DART", "init_args": {}}, "names DART, .* add --trust"),
        ({"class_path": 3, "init_args": {}}, r"corrupted \(class_path is a int\)"),
        ({"class_path": "torch.optim.Adam", "init_args": {}}, r"torch\.optim\.Adam is not a torch\.nn\.Module"),
        ({"class_path": "pyg_clusters.models.DART", "init_args": [1]}, r"corrupted \(init_args is a list\)"),
        ({"class_path": "pyg_clusters.models.DART", "init_args": {}, "notes": "n"}, r"corrupted \(notes is a str\)"),
        ({"class_path": "pyg_clusters.models.DART", "init_args": {"radius": 3}}, "cannot be rebuilt: TypeError"),
        ({"class_path": "pyg_clusters.models.DART", "init_args": {"radii": [6, 3]}}, "positive, finite and increasing"),
    ],
)
def test_configuration_without_a_valid_model(tmp_path, model, change, message):
    save_model(model, tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(change))
    assert_refused(tmp_path, message)


def test_no_model(tmp_path, model):
    assert_refused(tmp_path / "nowhere", "nowhere does not exist; give the folder of a run or of a saved model")
    assert_refused(tmp_path, "contains no trained model yet")
    save_model(model, tmp_path)
    assert model_folder(tmp_path) == tmp_path
    (tmp_path / "model.safetensors").unlink()
    assert_refused(tmp_path, "contains no trained model yet")


def test_an_argument_that_is_not_an_attribute_is_refused(tmp_path):
    with pytest.raises(TypeError, match="KeepsNothing must keep its argument 'width' as an attribute to be saved"):
        save_model(KeepsNothing(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_argument_that_json_cannot_hold_leaves_the_old_model(tmp_path, model):
    save_model(model, tmp_path)
    with pytest.raises(TypeError, match=r"KeepsAnObject cannot be saved: its argument .* not JSON serializable"):
        save_model(KeepsAnObject(object()), tmp_path)
    with pytest.raises(TypeError, match=r"Ensemble cannot be saved: .*; save its members, and .* save_ensemble"):
        save_model(Ensemble([model, model]), tmp_path)
    assert str(load_model(tmp_path)) == str(model)
