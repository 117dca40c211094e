"""Recipes with impossible values: one line on standard error, no traceback, no exhausted memory."""

import copy
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from helpers import assert_refused

from pyg_clusters.cli import main
from pyg_clusters.frames import write_extxyz
from pyg_clusters.training.train import _check_checkpoint

DATA = "data.dataset.init_args."
MODEL = "model.model.init_args."
OPTIMIZER = "model.optimizer.init_args."
TRAINER = "trainer."
LAYERED = {
    "class_path": "pyg_clusters.models.LayeredModel",
    "init_args": {"conv": "torch_geometric.nn.GATv2Conv", "conv_args": {"heads": 0}, "hidden_channels": 8},
}
SQUARE_ROOT = "math.sqrt"  # a callable that takes numbers
STEPS = "torch.optim.lr_scheduler.StepLR"

VALUES = {
    "rate": ({OPTIMIZER + "lr": -1.0}, "Invalid learning rate: -1.0"),
    "endless rate": ({OPTIMIZER + "lr": float("nan")}, "Invalid learning rate: nan"),
    "weight decay": ({OPTIMIZER + "weight_decay": -1.0}, "weight_decay"),
    "momenta": ({OPTIMIZER + "betas": [2.0, 0.9]}, "beta"),
    "seed": ({"seed_everything": -1}, "-1 is not in bounds"),
    "large seed": ({"seed_everything": 2**40}, "is not in bounds"),
    "seed of the split": ({"data.split_seed": -1}, "non-negative"),
    "epochs": ({TRAINER + "max_epochs": -5}, "max_epochs"),
    "steps": ({TRAINER + "max_steps": -7}, "max_steps"),
    "no GPU": ({TRAINER + "accelerator": "mps"}, "accelerator"),
    "no such processor": ({TRAINER + "accelerator": "abacus"}, "abacus"),
    "devices": ({TRAINER + "devices": -3}, "devices"),
    "strategy": ({TRAINER + "strategy": "quantum"}, "quantum"),
    "nodes": ({TRAINER + "num_nodes": 0}, "num_nodes"),
    "precision": ({TRAINER + "precision": "7"}, "precision"),
    "clipping": ({TRAINER + "gradient_clip_val": -1.0}, "gradient_clip_val must be at least 0, got -1.0"),
    "endless clipping": ({TRAINER + "gradient_clip_val": float("nan")}, "gradient_clip_val"),
    "algorithm": ({TRAINER + "gradient_clip_algorithm": "scissors"}, "scissors"),
    "accumulated": ({TRAINER + "accumulate_grad_batches": 0}, "accumulate_grad_batches must be at least 1, got 0"),
    "batches": ({TRAINER + "limit_train_batches": -1}, "limit_train_batches"),
    "interval": ({TRAINER + "val_check_interval": 1000}, "val_check_interval"),
    "time": ({TRAINER + "max_time": "soon"}, "soon"),
    "profiler": ({TRAINER + "profiler": "none of them"}, "profiler"),
    "monitor": (
        {
            TRAINER + "callbacks": [
                {
                    "class_path": "pytorch_lightning.callbacks.EarlyStopping",
                    "init_args": {"monitor": "charm", "check_on_train_epoch_end": True},
                }
            ]
        },
        "charm",
    ),
    "trainer": ({"trainer": None}, "trainer must be a group of arguments"),
    "checkpoints": ({TRAINER + "enable_checkpointing": False}, "enable_checkpointing"),
    "batch": ({"data.batch_size": None}, "batch_size must be at least 1, got None"),
    "transform of numbers": ({DATA + "transform": SQUARE_ROOT}, "must be real number, not Data"),
    "transform that returns text": ({DATA + "transform": "builtins.repr"}, "stores_as"),
    "transform that is a model": ({DATA + "transform": {"class_path": "pyg_clusters.models.DART"}}, "forward"),
    "stored transform": ({DATA + "pre_transform": "builtins.len"}, "stores_as"),
    "filter": ({DATA + "pre_filter": SQUARE_ROOT}, "must be real number, not Data"),
    "references": ({DATA + "references": {"Ga": float("nan")}}, "reference energy of Ga is nan"),
    "folder": ({DATA + "root": "a\0b"}, "null byte"),
    "width": ({MODEL + "hidden_channels": -4}, "-4"),
    "shells": ({MODEL + "active_shells": [7]}, "active_shells must be among 0 to 2, got [7]"),
    "heads": ({"model.model": LAYERED}, "GATv2Conv fails on a cluster of three atoms"),
    "loss": ({"model.loss": {"class_path": "torch.nn.ReLU"}}, "ReLU"),
    "reduction": ({"model.loss": {"class_path": "torch.nn.L1Loss", "init_args": {"reduction": "x"}}}, "reduction"),
    "no optimizer": ({"model.optimizer": None}, "not callable"),
    "schedule": ({"model.scheduler": {"class_path": STEPS, "init_args": {"step_size": 0}}}, "ZeroDivisionError"),
    "noise": ({"model.position_noise": -0.1}, "position_noise must be finite and not negative (in Å), got -0.1"),
    "endless noise": ({"model.position_noise": float("inf")}, "position_noise must be finite"),
}

REPEATED = "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True))
TEXTS = {
    "nothing": (b"", "config"),
    "no text": (b"\xff\xfe\0\1", "utf-8"),
    "aliases of aliases": (f"a: &a [{', '.join('x' * 9)}]\n{REPEATED}".encode(), "more than 100,000 values"),
    "itself": (b"data: &a [*a]\n", "more than 100,000 values"),
    "itself in a mapping": (b"data: &a\n  dataset: *a\n", "more than 100,000 values"),
    "brackets": (b"[" * 1_000, "config"),
    "digits": (b"seed_everything: " + b"9" * 6_000, "6000 digits"),
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> dict:
    """A recipe for twenty clusters of eight gallium atoms."""
    folder = tmp_path_factory.mktemp("gallium")
    generator = np.random.default_rng(0)
    cube = np.stack(np.meshgrid(*[[0.0, 2.8]] * 3), -1).reshape(-1, 3)
    frames = [Atoms("Ga8", cube + generator.normal(scale=0.2, size=cube.shape)) for _ in range(20)]
    for atoms in frames:
        atoms.info["E"] = generator.normal() - 16
    write_extxyz(folder / "cubes.extxyz", frames)
    arguments = {"root": str(folder / "root"), "files": str(folder / "cubes.extxyz"), "target": "E"}
    return {
        "seed_everything": 0,
        "data": {
            "dataset": {"class_path": "pyg_clusters.datasets.ClusterDataset", "init_args": arguments},
            "split": "random",
            "batch_size": 8,
        },
        "model": {
            "model": {"class_path": "pyg_clusters.models.DART", "init_args": {"hidden_channels": 8}},
            "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.001}},
        },
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
    }


def changed(recipe: dict, values: dict) -> dict:
    recipe = copy.deepcopy(recipe)
    for path, value in values.items():
        *parents, name = path.split(".")
        group = recipe
        for parent in parents:
            group = group[parent]
        group[name] = value
    return recipe


def refusal(file: Path, capsys) -> str:
    """The only line on standard error."""
    assert main(["train", "--config", str(file), "--out", str(file.parent / "run")]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1 and lines[0].startswith("pyg-clusters: ")
    return lines[0]


@pytest.mark.filterwarnings("ignore")  # of Lightning, about the trainer
@pytest.mark.parametrize("name", VALUES)
def test_impossible_values(recipe, tmp_path, capsys, name):
    values, reason = VALUES[name]
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(changed(recipe, values)))
    assert reason in refusal(file, capsys)


@pytest.mark.parametrize("name", TEXTS)
def test_texts_that_are_not_a_recipe(tmp_path, capsys, name):
    text, reason = TEXTS[name]
    file = tmp_path / "recipe.yaml"
    file.write_bytes(text)
    assert reason in refusal(file, capsys)


def test_errors_that_no_verb_expects_are_one_line(tmp_path, monkeypatch, capsys):
    def fail(options):
        raise KeyError("charm")

    monkeypatch.setattr("pyg_clusters.analysis.info", fail)
    file = tmp_path / "md.xyz"
    file.touch()
    assert main(["info", str(file)]) == 1
    assert capsys.readouterr().err.startswith("pyg-clusters: unexpected KeyError: 'charm' (cli.py, line ")
    with pytest.raises(KeyError, match="charm"):
        main(["info", str(file), "--debug"])


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return self.path.touch, ()


@pytest.mark.filterwarnings("ignore")  # of Lightning, about the trainer
def test_a_corrupted_checkpoint_leaves_the_run_as_it_is(recipe, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run, mark = tmp_path / "run", tmp_path / "mark"
    assert main(["train", "--config", str(tmp_path / "recipe.yaml"), "--out", str(run)]) == 0
    checkpoint = run / "checkpoints" / "last.ckpt"
    whole = checkpoint.read_bytes()
    pickled = io.BytesIO()
    torch.save({"state_dict": Touch(mark)}, pickled)
    more = ["train", "--resume", str(run), "--trainer.max_epochs", "2"]
    capsys.readouterr()
    checkpoint.write_bytes(pickled.getvalue())
    assert main(more) == 2
    assert f"{checkpoint}: corrupted" in capsys.readouterr().err
    assert (run / "finished.json").exists() and not mark.exists()
    for content in (b"", whole[: len(whole) // 2], pickle.dumps(Touch(mark)), pickled.getvalue()):
        checkpoint.write_bytes(content)
        assert_refused(lambda: _check_checkpoint(checkpoint), f"{checkpoint}: corrupted")
        assert not mark.exists()
    for state in ({}, {"state_dict": {}}):
        torch.save(state, checkpoint)
        words = "is missing); remove it to train from the first epoch again"
        assert_refused(lambda: _check_checkpoint(checkpoint), words)
    checkpoint.write_bytes(whole)
    assert main(more) == 0
