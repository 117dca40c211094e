"""Energies of alloys are compared within a composition, those of one element within a size."""

import json

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from helpers import rows_of

from pyg_clusters.cli import main
from pyg_clusters.composition import comparable, composition_names, compositions
from pyg_clusters.evaluation.comparison import CompositionMean
from pyg_clusters.frames import write_extxyz
from pyg_clusters.metrics import energy_metrics, metrics_by_size
from pyg_clusters.models import AlloyDART, save_model
from pyg_clusters.testing import random_clusters


def frames_of(formula: str, number: int, energy: float) -> list[Atoms]:
    rng = np.random.default_rng(len(formula))
    frames = []
    for seed in range(number):
        numbers = rng.permutation(Atoms(formula).numbers)
        _, pos, _ = random_clusters((len(numbers),), 29, torch.Generator().manual_seed(seed))
        frames.append(Atoms(numbers, pos.numpy(), info={"e": energy + 0.1 * seed}))
    return frames


@pytest.fixture(scope="module")
def alloys(tmp_path_factory):
    """Ten frames each of Cu6Au2 and Cu2Au6, whose energies differ by far more than those of isomers."""
    folder = tmp_path_factory.mktemp("alloys")
    write_extxyz(folder / "md.extxyz", frames_of("Cu6Au2", 10, -30.0) + frames_of("Cu2Au6", 10, -90.0))
    torch.manual_seed(0)
    model = AlloyDART(elements=(29, 79))
    z = torch.tensor([29] * 6 + [79] * 2 + [29] * 2 + [79] * 6)
    model.scale.fit(z, torch.tensor([0, 8, 16]), torch.tensor([-30.0, -90.0]))
    model.domain.fit(z, torch.tensor([0, 8, 16]))
    save_model(model, folder / "model", {"target": "e"})
    return folder


def test_names_are_those_of_ase():
    atoms = [Atoms(formula) for formula in ("Ga31", "Cu10Au10", "AuCu3", "Na", "H2OC")]
    ptr = np.cumsum([0, *map(len, atoms)])
    names = composition_names(np.concatenate([one.numbers for one in atoms]), ptr)
    assert names.tolist() == [one.get_chemical_formula() for one in atoms]
    assert composition_names(np.zeros(0, int), np.zeros(1, int)).tolist() == []


def test_elements_that_do_not_occur_take_no_memory():
    z, ptr = np.array([31, 31, 33, 29, 31]), np.array([0, 3, 5])
    elements, counts = compositions(z, ptr)
    assert elements.tolist() == [29, 31, 33] and counts.tolist() == [[0, 2, 1, 0], [1, 1, 0, 0]]
    mean = CompositionMean(z[:3], ptr[:2], np.array([-6.0]))
    assert mean(z, ptr).tolist() == pytest.approx([-6.0, -2.4])  # Ga2As, and gallium alone of CuGa


def test_one_element_is_compared_within_a_size():
    names, sizes = np.array(["Ga31", "Ga46", "Ga31"]), np.array([31, 46, 31])
    assert comparable(names, sizes).tolist() == [31, 46, 31]
    assert comparable(np.array(["Cu13", "Au13"]), np.array([13, 13])).tolist() == ["Cu13", "Au13"]


def test_ranks_are_those_within_a_composition():
    """Two compositions of one size, each in reverse order: the difference between them must not count."""
    target = np.concatenate([np.arange(5.0), 100 + np.arange(5.0)])
    predicted = np.concatenate([-np.arange(5.0), 100 - np.arange(5.0)])
    sizes, kinds = np.full(10, 20), np.repeat(["Au10Cu10", "AuCu19"], 5)
    assert energy_metrics(predicted, target, sizes)["spearman_within_size"] > 0.4
    assert energy_metrics(predicted, target, sizes, kinds)["spearman_within_size"] == pytest.approx(-1.0)
    rows = metrics_by_size(predicted, target, sizes, kinds)
    assert [(row["size"], row["composition"], row["num_clusters"]) for row in rows] == [
        (20, "Au10Cu10", 5),
        (20, "AuCu19", 5),
    ]


@pytest.mark.parametrize("choose", ["rank", "unique", "diverse", "bins"])
@pytest.mark.filterwarnings("default:the bins of", "default:.* distinct structures among")
@pytest.mark.usefixtures("no_report")
def test_screen_selects_from_each_composition(alloys, tmp_path, choose):
    number = ("--bins", "2") if choose == "bins" else ("--top", "2")
    command = ["screen", str(alloys / "model"), str(alloys / "md.extxyz"), "--choose", choose, *number]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    rows = rows_of(tmp_path / "out" / "candidates.csv")
    assert [row["composition"] for row in rows] == ["Au2Cu6"] * 2 + ["Au6Cu2"] * 2
    assert rows[0]["pred_rank"] == rows[2]["pred_rank"] == "1"
    found = ase.io.read(tmp_path / "out" / "candidates.extxyz", ":")
    assert [atoms.get_chemical_formula() for atoms in found] == [row["composition"] for row in rows]


@pytest.mark.parametrize("choose", [["rank", "--top", "1"], ["bins", "--bins", "1"]])
@pytest.mark.filterwarnings("ignore:.*of 10 atoms are outside")
def test_candidates_are_listed_by_size_then_by_composition(alloys, tmp_path, choose):
    frames = tmp_path / "md.extxyz"
    write_extxyz(frames, frames_of("Cu8Au2", 2, -30.0) + frames_of("Cu2Au6", 2, -90.0) + frames_of("Cu6Au2", 2, -30.0))
    command = ["screen", str(alloys / "model"), str(frames), "--out", str(tmp_path / "out"), "--choose", *choose]
    assert main(command) == 0
    rows = rows_of(tmp_path / "out" / "candidates.csv")
    assert [row["composition"] for row in rows] == ["Au2Cu6", "Au6Cu2", "Au2Cu8"]


def test_the_report_has_a_column_for_each_composition(alloys, tmp_path):
    command = ["screen", str(alloys / "model"), str(alloys / "md.extxyz"), "--top", "2", "--truth", "e"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "report.html").read_text()
    assert "Summary by composition." in text and "Au6Cu2</th>" in text


def test_evaluate_has_a_row_for_each_composition(alloys, tmp_path, capsys):
    command = ["evaluate", str(alloys / "model"), str(alloys / "md.extxyz"), "--target", "e"]
    assert main([*command, "--out", str(tmp_path / "errors.json")]) == 0
    shown = capsys.readouterr().out
    assert "Errors by composition" in shown and "Au6Cu2" in shown
    found = json.loads((tmp_path / "errors.json").read_text())
    assert [row["composition"] for row in found["by_size"]] == ["Au2Cu6", "Au6Cu2"]
    mean = np.mean([row["spearman"] for row in found["by_size"]])
    assert found["overall"]["spearman_within_size"] == pytest.approx(mean)


def test_benchmark_of_screening_is_by_composition(alloys, tmp_path):
    command = ["benchmark-screening", str(alloys / "model"), str(alloys / "md.extxyz"), "--truth", "e", "--top", "3"]
    assert main([*command, "--bins", "3", "--out", str(tmp_path / "benchmark")]) == 0
    assert [row["composition"] for row in rows_of(tmp_path / "benchmark" / "ranking.csv")] == ["Au2Cu6", "Au6Cu2"]
    assert {row["composition"] for row in rows_of(tmp_path / "benchmark" / "strategies.csv")} == {"Au2Cu6", "Au6Cu2"}


def test_info_lists_compositions_of_alloys_only(alloys, tmp_path, capsys):
    assert main(["info", str(alloys / "md.extxyz")]) == 0
    assert "Au2Cu6: 10, Au6Cu2: 10" in " ".join(capsys.readouterr().out.split())
    write_extxyz(tmp_path / "cu.extxyz", frames_of("Cu8", 2, 0.0))
    assert main(["info", str(tmp_path / "cu.extxyz")]) == 0
    assert "frames per composition" not in capsys.readouterr().out
