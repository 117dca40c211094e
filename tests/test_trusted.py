"""A folder from somebody else does not run its own code."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from pyg_clusters.cli import main
from pyg_clusters.datasets import Split
from pyg_clusters.errors import InputError
from pyg_clusters.inference.run import Run
from pyg_clusters.models import DART, LayeredModel, load_model, save_ensemble, save_model
from pyg_clusters.models.checkpoint import available_models
from pyg_clusters.shipped import shipped_recipe
from pyg_clusters.trusted import TRUSTED, check_trusted, is_trusted

PYG = "torch_geometric.nn."
MARK = "__import__('pathlib').Path('mark').touch()"
EVALUATED = {"class_path": PYG + "Sequential", "init_args": {"input_args": f"x -> {MARK}", "modules": []}}
OF_THE_FOLDER = {"class_path": "evil.Thing", "init_args": {}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a module that creates a file when it is imported."""
    monkeypatch.chdir(tmp_path)
    code = "import pathlib, torch\npathlib.Path('mark').touch()\nclass Thing(torch.nn.Linear):\n"
    code += "    def __init__(self): super().__init__(1, 1)\n"
    (tmp_path / "evil.py").write_text(code)
    yield tmp_path
    sys.modules.pop("evil", None)


def model_json(folder: Path, class_path: str, init_args: dict, name: str = "model") -> Path:
    path = folder / name
    save_model(DART(hidden_channels=4), path)
    (path / "model.json").write_text(json.dumps({"class_path": class_path, "init_args": init_args, "notes": {}}))
    return path


def layered(**arguments) -> tuple[str, dict]:
    return "pyg_clusters.models.LayeredModel", {"conv": PYG + "GCNConv", "hidden_channels": 8, **arguments}


MODELS = [
    (EVALUATED["class_path"], EVALUATED["init_args"]),
    (OF_THE_FOLDER["class_path"], {}),
    ("torch_geometric.nn.sequential.Sequential", EVALUATED["init_args"]),
    ("pyg_clusters.models.layered.nn.Linear", {"in_features": 1, "out_features": 1}),
    layered(conv=EVALUATED),
    layered(conv=EVALUATED["class_path"], conv_args=EVALUATED["init_args"]),
    layered(conv="evil.Thing"),
    layered(conv={"class_path": "evil.Thing"}),
    layered(conv=PYG + "GINEConv", conv_args={"nn": EVALUATED}),
    layered(conv=PYG + "GINEConv", conv_args={"nn": "evil.Thing"}),
    layered(conv=PYG + "SAGEConv", conv_args={"aggr": "evil.Thing"}),
    layered(conv=PYG + "SAGEConv", conv_args={"aggr": ["mean", {"class_path": "evil.Thing", "init_args": {}}]}),
    layered(conv=PYG + "SchNet", conv_args={"interaction_graph": EVALUATED}),
    layered(conv=PYG + "GINEConv", conv_args={"nn": {"class_path": PYG + "MLP", "init_args": {"act": EVALUATED}}}),
    layered(conv=PYG + "GINEConv", conv_args={"nn": {"class_path": PYG + "MLP", "init_args": {"act": "x -> exit()"}}}),
    layered(conv={"class_path": PYG + "GCNConv", "init_args": {}, "dict_kwargs": {"aggr": "evil.Thing"}}),
]


@pytest.mark.parametrize(("class_path", "init_args"), MODELS)
def test_a_model_runs_no_code_of_its_folder(folder, class_path, init_args):
    path = model_json(folder, class_path, init_args)
    with pytest.raises(InputError, match=r"model\.json") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    save_ensemble(folder / "ensemble", [path, path])
    with pytest.raises(InputError):
        load_model(folder / "ensemble")
    for argv in (["info", str(path)], ["evaluate", str(path), "x.xyz"], ["ensemble", "model", "model"]):
        assert main([*argv, "--out", "out"] if argv[0] == "ensemble" else argv) == 2
    assert not Path("mark").exists()


def test_trusted_classes_run(folder, capsys):
    """With ``--trust`` a class in a file of the current folder is found, at the end of the path."""
    path = folder / "model"
    path.mkdir()
    linear = nn.Linear(1, 1)
    save_model(LayeredModel(PYG + "GCNConv", num_layers=1, hidden_channels=4), path)
    assert isinstance(load_model(path), LayeredModel)
    from safetensors.torch import save_file

    save_file({name: weight.detach() for name, weight in linear.state_dict().items()}, path / "model.safetensors")
    (path / "model.json").write_text(json.dumps(OF_THE_FOLDER))
    before = list(sys.path)
    assert main(["info", "model"]) == 2
    assert "names evil.Thing" in (said := capsys.readouterr().err) and "add --trust" in said
    assert not Path("mark").exists()
    assert main(["info", "model", "--trust"]) == 0
    assert Path("mark").exists() and sys.path == before
    assert type(load_model(path, trust=True)).__name__ == "Thing"
    with pytest.raises(InputError, match="add --trust"):
        load_model(path)


def run_folder(folder: Path, **data) -> Path:
    """The files of a run of the shipped recipe that ``Run.data`` reads."""
    recipe = yaml.safe_load(shipped_recipe("dart_gallium_quick.yaml").read_text())
    recipe["data"]["dataset"] |= data
    run = folder / "run"
    save_model(DART(hidden_channels=4), run / "best")
    Split(*(torch.tensor([number]) for number in range(3))).save(run / "splits")
    (run / "config.yaml").write_text(yaml.safe_dump(recipe))
    return run


DATA = [
    {"class_path": "evil.Thing"},
    {"init_args": {"transform": EVALUATED}},
    {"init_args": {"transform": "evil.Thing"}},
    {"init_args": {"pre_transform": OF_THE_FOLDER}},
    {"init_args": {"pre_filter": "os.getcwd"}},
    {"init_args": "evil.yaml"},
    {"dict_kwargs": {"transform": OF_THE_FOLDER}},
]


@pytest.mark.parametrize("data", DATA)
def test_a_run_runs_no_code_of_its_folder(folder, data):
    run = run_folder(folder, **data)
    with pytest.raises(InputError, match=r"config\.yaml"):
        _ = Run(run).data
    for argv in (["evaluate", "run"], ["calibrate", "run"], ["train", "--resume", "run"]):
        assert main(argv) == 2
    assert not Path("mark").exists()


TRAINING = [
    {"trainer": {"callbacks": [OF_THE_FOLDER]}},
    {"trainer": {"callbacks": "evil.Thing"}},
    {"trainer": {"logger": OF_THE_FOLDER}},
    {"trainer": {"profiler": "evil.Thing"}},
    {"trainer": {"plugins": ["evil.Thing"]}},
    {"trainer": "evil.yaml"},
    {"config": "evil.yaml"},
    {"data": "evil.yaml"},
    {"model": OF_THE_FOLDER},
    {"model": {"model": OF_THE_FOLDER}},
    {"model": {"optimizer": OF_THE_FOLDER}},
    {"model": {"scheduler": "evil.Thing"}},
    {"model": {"loss": "evil.Thing"}},
    {"model": {"model": {"class_path": layered()[0], "init_args": layered(conv="evil.Thing")[1]}}},
]


@pytest.mark.parametrize("values", TRAINING)
def test_a_resumed_run_runs_no_code_of_its_folder(folder, values):
    run = run_folder(folder)
    recipe = yaml.safe_load((run / "config.yaml").read_text())
    (folder / "evil.yaml").write_text(yaml.safe_dump({"callbacks": [OF_THE_FOLDER], "dataset": OF_THE_FOLDER}))
    (run / "config.yaml").write_text(yaml.safe_dump(recipe | values))
    assert main(["train", "--resume", "run"]) == 2
    ensemble = folder / "ensemble"
    save_ensemble(ensemble, [ensemble / "member_0", ensemble / "member_1"], {"number": 2, "options": []})
    shutil.copy(run / "config.yaml", ensemble / "recipe.yaml")
    assert main(["train", "--resume", "ensemble"]) == 2
    assert not Path("mark").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--model.model.class_path", "evil.Thing"],
        ["--trainer.callbacks+=evil.Thing"],
        ["--config=evil.yaml"],
        ["--data", "evil.yaml"],
        ["--model.model.init_args", '{"conv": "evil.Thing"}'],
    ],
)
def test_options_of_a_resumed_ensemble_run_no_code(folder, options):
    ensemble = folder / "ensemble"
    (folder / "evil.yaml").write_text(yaml.safe_dump({"callbacks": [OF_THE_FOLDER], "dataset": OF_THE_FOLDER}))
    save_ensemble(ensemble, [ensemble / "member_0", ensemble / "member_1"], {"number": 2, "options": options})
    shutil.copy(shipped_recipe("dart_gallium_quick.yaml"), ensemble / "recipe.yaml")
    assert main(["train", "--resume", "ensemble"]) == 2
    assert not Path("mark").exists()


@pytest.mark.parametrize("text", ["!!python/object/apply:os.system ['touch mark']", "data: !!python/name:evil.Thing"])
def test_tags_of_yaml_run_no_code(folder, text):
    run = run_folder(folder)
    (run / "config.yaml").write_text(text)
    assert main(["evaluate", "run"]) == 2 and main(["train", "--resume", "run"]) == 2
    assert not Path("mark").exists()


def test_files_beside_the_data_are_not_imported(tmp_path):
    """Neither the command nor ``python -m`` imports modules that packages search for."""
    names = "torch_scatter torch_sparse torch_cluster pyg_lib MDAnalysis tblite ray wandb h5py evil".split()
    for name in names:
        (tmp_path / f"{name}.py").write_text(f"open('mark_{name}', 'w').close()\n")
    (tmp_path / "md.xyz").write_text("2\n\nGa 0 0 0\nGa 0 0 2.7\n")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-m", "pyg_clusters", "predict", "gallium", "md.xyz", "--out", "out.csv"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob("mark_*"))


def test_the_classes_exist_and_are_trusted_where_they_are_made():
    for package, names in TRUSTED.items():
        module = __import__(package, fromlist=["*"])
        for name in names:
            found = getattr(module, name, None)
            if found is None:  # a function in one of its modules
                continue
            assert is_trusted(f"{package}.{name}") and is_trusted(f"{found.__module__}.{found.__qualname__}")
    for path in ("DART", "", ".DART", "os.system", "pyg_clusters.models", "torch.nn.Sequential", "torch.hub.load"):
        assert not is_trusted(path)


def test_shipped_classes_are_trusted():
    for name in available_models():
        load_model(name)
    for recipe in sorted(shipped_recipe("dart_gallium.yaml").parent.glob("*.yaml")):
        check_trusted(yaml.safe_load(recipe.read_text()), recipe)
    assert Run("gallium").predictor()


@pytest.mark.parametrize("nested", ["[" * 100_000, '{"class_path": "x", "init_args": ' + "[" * 500 + "]" * 500 + "}"])
def test_a_deeply_nested_configuration(tmp_path, nested):
    path = model_json(tmp_path, *layered())
    (path / "model.json").write_text(nested)
    with pytest.raises(InputError, match=r"model\.json"):
        load_model(path)


def test_an_ensemble_of_itself(tmp_path):
    save_ensemble(tmp_path, [tmp_path, tmp_path])
    with pytest.raises(InputError, match="contains no trained model"):
        load_model(tmp_path)
