"""Typical mistakes on the command line: one line with a remedy, exit code 2, and no traceback."""

import shlex

import pytest
import torch
from helpers import atoms_of

from pyg_clusters.cli import main
from pyg_clusters.errors import InputError
from pyg_clusters.frames import write_extxyz
from pyg_clusters.testing import random_clusters
from pyg_clusters.training.recipes import errors_of_recipe

MISTAKES = {
    "scren gallium md.extxyz": "did you mean 'screen'?",
    "generate qench": "there is no algorithm 'qench'; did you mean 'quench'?",
    "predict": "MODEL and FRAMES and --out missing",
    "predict gallium md.extxyz": "--out missing",
    "screen gallium md.extxyz --out s --top": "--top needs a value",
    "generate sblda --sizes 24 26 --out a.extxyz": "cannot use '26': the argument before it takes one value (write",
    "predict gallium md.extxyz --outt p.csv": "did you mean 'out'?",
    "predict gallium md.extxyz --out p.txt": ".parquet",
    "predict galium md.extxyz --out p.csv": "did you mean 'gallium'?",
    "predict runs md.extxyz --out p.csv": "did you mean runs/training?",
    "predict gallium nothere.extxyz --out p.csv": "no such file",
    "predict gallium table.csv --out p.csv": "table.csv: neither content nor name",
    "predict gallium md.extxyz --coverage 90 --out p.csv": "between 0 and 1",
    "predict gallium md.extxyz --coverage high --out p.csv": "--coverage must be a number, got 'high'",
    "predict gallium md.extxyz --on-bad stp --out p.csv": "must be stop or skip, got 'stp'; did you mean 'stop'?",
    "predict gallium md.extxyz --overwrite=yes --out p.csv": "--overwrite takes no value",
    "predict --config nothere.yaml": "nothere.yaml: cannot be read",
    "predict --config table.csv": "contains no options",
    "screen gallium md.extxyz --top ten --out s": "--top must be a whole number, got 'ten'",
    "screen gallium md.extxyz --top 2.5 --out s": "--top must be a whole number, got '2.5'",
    "screen gallium md.extxyz --top 0 --out s": "--top must be at least 1",
    "screen gallium md.extxyz --choose ranks --out s": "did you mean 'rank'?",
    "screen gallium md.extxyz --relax --out s": "use a SmoothDART",
    "screen gallium md.extxyz --truth nothere --out s": "no property 'nothere'",
    "screen gallium md.extxyz --write vaspp --out s": "'vaspp'",
    "screen gallium md.extxyz --fmax 0.05 --out s": "--fmax requires --relax",
    "relax md.extxyz --calculator guptaa --out r.extxyz": "no calculator 'guptaa'",
    "relax md.extxyz --fmax small --out r.extxyz": "--fmax must be a number",
    "label energy md.extxyz --out l.extxyz": "--calculator missing",
    "generate sblda --sizes ten --out g.extxyz": "neither a number nor",
    "generate quench --formula Xx3 --calculator emt --out g.extxyz": "is not a chemical formula",
    "describe md.extxyz --radii a,b": "--radii",
    "convert md.extxyz --out x.extxyz": ".h5",
    "evaluate gallium": "pyg-clusters evaluate gallium FRAMES",
    "evaluate gallium md.extxyz": "found per frame: energy; per atom: none; name the label with --target",
    "evaluate gallium md.extxyz --target nothere": "no property 'nothere'",
    "evaluate runs": "did you mean runs/training?",
    "calibrate gallium": "not the folder of a run",
    "compare-dft empty md.extxyz": "no candidates.extxyz",
    "info empty": "the folder is empty",
    "info nothere": "no such file",
    "info table.csv": "table.csv: neither content nor name",
    "info recipe.yaml": "recipe.yaml: neither content nor name",
    "demo --top x": "--top must be a whole number",
    "train": "needs a recipe",
    "train dart-galium": "no recipe of that name",
    "train md.extxyz": "new-recipe writes a recipe",
    "train --resume runs": "did you mean runs/training?",
    "train --resume": "--resume needs a value",
    "train recipe.yaml --ensemble x --out a": "needs a whole number",
    "train recipe.yaml --trainer.max_epochs ten --out a": "--trainer.max_epochs must be a whole number, got 'ten'",
    "train recipe.yaml --data.batch_size many --out a": "--data.batch_size must be a whole number",
    "train recipe.yaml --data.split groups --out a": "did you mean 'group'?",
    "train recipe.yaml --model.model NoSuchModel --out a": "no class 'NoSuchModel'",
    "train recipe.yaml --trainer.logger csvv --out a": "no class 'csvv'",
    "new-recipe table.csv --out n.yaml": "table.csv",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Frames, a table, a recipe, an empty folder, and a folder that contains a run folder."""
    folder = tmp_path_factory.mktemp("mistakes")
    frames = atoms_of(*random_clusters((31,) * 30, 31, torch.Generator().manual_seed(1)))
    for number, atoms in enumerate(frames):
        atoms.info["energy"] = -70.0 - 0.1 * number
    write_extxyz(folder / "md.extxyz", frames)
    (folder / "table.csv").write_text("a,b\n1,2\n")
    (folder / "empty").mkdir()
    (folder / "runs/training/best").mkdir(parents=True)
    assert main(["new-recipe", str(folder / "md.extxyz"), "--out", str(folder / "recipe.yaml")]) == 0
    return folder


@pytest.mark.parametrize("command", MISTAKES)
def test_one_line_says_what_to_do(command, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(shlex.split(command)) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("pyg-clusters: ") and len(said.splitlines()) == 1, said
    assert MISTAKES[command] in said
    assert not any(word in said for word in ("<class", "Traceback", "unexpected", "NoneType")), said


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["train", "recipe.yaml", "--trainer.accelerator", "gpu", "--out", "gpu"]) == 2
    assert "--trainer.accelerator gpu: not available on this machine" in capsys.readouterr().err


@pytest.mark.parametrize("trainer", ["", "trainer: {max_epochs: 1}", "trainer: [1]"])
def test_an_accelerator_that_no_recipe_names(trainer, tmp_path):
    """The error of Lightning is one line, whatever is in the recipe."""
    (tmp_path / "recipe.yaml").write_text(f"seed_everything: 0\n{trainer}\n")
    argv = ["--config", str(tmp_path / "recipe.yaml")]
    with pytest.raises(InputError, match=r"--trainer\.accelerator auto: not available"), errors_of_recipe(argv):
        raise ValueError("no accelerator is there")


def test_info_on_a_screening(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["screen", "gallium", "md.extxyz", "--top", "2", "--out", "screening"]) == 0
    assert main(["info", "screening"]) == 0
    assert "candidates.extxyz: 2 frames" in capsys.readouterr().out
