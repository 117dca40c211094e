"""The report of a screening: figures, table, and structures with and without chemiscope."""

import sys

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.cluster import Icosahedron

from pyg_clusters.analysis.report import Property, _structure, shown_first, viewer_section
from pyg_clusters.errors import InputError, MissingExtra
from pyg_clusters.inference import Predictor
from pyg_clusters.inference.run import Run
from pyg_clusters.models import DART, Ensemble, LastLayerPosterior
from pyg_clusters.screening import report
from pyg_clusters.screening.candidates import Candidate, Screening
from pyg_clusters.screening.screen import check_zero
from pyg_clusters.strategies import Rank

pytestmark = pytest.mark.figures

ICOSAHEDRON = Icosahedron("Cu", 2, latticeconstant=3.6)


def screening(sizes: tuple[int, ...] = (13, 13, 12)) -> Screening:
    """One candidate of each given size, among frames of 13 and 12 atoms; the second of a size is 0.5 eV higher."""
    candidates = []
    for place, size in enumerate(sizes):
        number = sizes[:place].count(size) + 1
        energy = -2.0 * size + 0.5 * (number - 1)
        properties = {"dft": energy + 1.0}
        atoms = Atoms("Ga" * size, ICOSAHEDRON.positions[:size])
        file = "a.xyz" if place + 1 < len(sizes) else "b.xyz"
        candidates.append(Candidate(file, place, energy, number, atoms, properties, place, f"lowest {number}"))
    size, energy = np.array(sizes), np.array([candidate.energy for candidate in candidates])
    files = np.array(["a.xyz"] * (len(sizes) - 1) + ["b.xyz"])
    return Screening(files, np.arange(len(sizes)), size, energy, {"dft": energy + 1.0}, candidates, [], truth="dft")


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.manual_seed(0)
    return Predictor(DART(hidden_channels=8))


def test_figures_are_made_once(predictor, tmp_path, monkeypatch):
    calls = []
    original = report.screening_figures
    monkeypatch.setattr(report, "screening_figures", lambda *more: calls.append(more) or original(*more))
    made = report.make_report(screening(), tmp_path, predictor, Run(tmp_path), Rank(3))
    made.write(tmp_path / "report.html")
    assert len(calls) == 1
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"trajectory.png", "distribution.png"}


@pytest.mark.parametrize(("shift", "printed"), [(0.0, False), (-0.5, True), (-100.0, None)])
def test_true_energies_with_another_zero(shift, printed):
    """1 eV per cluster is an error of a model, 0.5 eV per atom may be one, and 100 eV per atom is a different zero."""
    sizes = (13,) * 6 + (12,) * 6
    other = screening(sizes)
    for candidate in other.candidates:
        candidate.energy = -2.0 * candidate.size + 0.01 * candidate.rank
        candidate.properties["dft"] = candidate.energy + shift * candidate.size
    if printed is None:
        with pytest.raises(InputError, match=r"--truth dft: .*a different zero from the model: .* Ga -100 eV per atom"):
            check_zero(other)
        return
    assert ["Ga -0.5 eV per atom" in line for line in check_zero(other)] == [True] * printed


def test_true_energies_of_two_zeros_are_named():
    """Total energies in some frames and binding energies in the others, of clusters of one size."""
    other = screening((13,) * 12)
    for candidate in other.candidates:
        candidate.energy = -2.0 * candidate.size
        candidate.properties["dft"] = -2.0 * candidate.size - 52000.0 * candidate.size * (candidate.frame % 2)
    (line,) = check_zero(other)
    assert "--truth dft: energies of 13 atoms differ by up to 5.2e+04 eV per atom" in line


def test_atoms_are_coloured_relative_to_their_element(predictor, monkeypatch):
    """Two gold atoms of -4.1 and -3.9 eV, and eleven copper atoms of -3 eV but one of -2.56 eV."""
    energies = np.array([-4.1, -3.9, *[-3.0] * 10, -2.56])
    shown = screening((13,))
    shown.candidates[0].atoms = Atoms([79] * 2 + [29] * 11, ICOSAHEDRON.positions)
    found = {}
    monkeypatch.setattr(Predictor, "atomic_energies", lambda *_, **__: [energies])
    monkeypatch.setattr(report, "viewer_section", lambda atoms, properties, **_: found.update(properties))
    report._add_viewer(report.Report("title"), shown, predictor)
    colours = found["energy above the mean / meV"].values
    assert colours == pytest.approx([-100.0, 100.0, *[-40.0] * 10, 400.0])


def test_without_chemiscope_the_page_names_the_extra(predictor, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "chemiscope", None)
    made = report.make_report(screening(), tmp_path, predictor, Run(tmp_path), Rank(3))
    made.write(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("pip install &#x27;pyg-clusters[report]&#x27;") == 1
    assert "<script" not in page and page.count("<td") > 10
    with pytest.raises(MissingExtra, match=r"pip install 'pyg-clusters\[report\]'"):
        viewer_section([ICOSAHEDRON], {"rank": Property(np.arange(1))}, x="rank", y="rank", color="rank")


def test_properties_of_candidates():
    """Energies above the lowest refer to a size; true energies have their own zero."""
    found = screening()
    properties = report.candidate_properties(found, found.candidates)
    assert properties["atoms"].values.tolist() == [13, 13, 12]
    assert properties["source_file"].values.tolist() == ["a.xyz", "a.xyz", "b.xyz"]
    assert properties["predicted energy"].values.tolist() == [-26.0, -25.5, -24.0]
    for kind in ("predicted", "true"):
        assert properties[f"{kind} energy above the lowest"].values.tolist() == [0.0, 0.5, 0.0]


def test_true_energies_are_compared_in_the_printed_result(capsys):
    """Six frames of 13 atoms, 1 eV below their true energies; the candidate is the second lowest by true energy."""
    found = screening((13,) * 6)
    found.candidates = found.candidates[1:2]
    found.print()
    expected = (
        "dft: MAE 23.06 kcal/mol, Spearman within a size 1.00\n"
        "  lowest candidate 11.53 kcal/mol above the lowest of all frames"
    )
    assert capsys.readouterr().out.endswith(f"{expected}\n")
    found.relaxed = np.array([np.nan, *found.energy[1:]])  # the lowest frame was not in the pool
    assert found.regrets() == pytest.approx({13: 11.53}, abs=0.01)
    found = screening()
    found.candidates = found.candidates[1:]
    found.print()
    line = "  lowest candidate 5.77 kcal/mol above the lowest of all frames (mean of 2 sizes)"
    expected = f"dft: MAE 23.06 kcal/mol\n{line}"
    assert capsys.readouterr().out.endswith(f"{expected}\n")


def test_a_page_holds_no_more_atoms_than_it_can(predictor, tmp_path, monkeypatch):
    pytest.importorskip("chemiscope")
    monkeypatch.setattr(report, "shown_first", lambda sizes: shown_first(sizes, max_atoms=30))
    made = report.make_report(screening(), tmp_path, predictor, Run(tmp_path), Rank(3))
    made.write(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "Only the first 2 of 3 candidates are shown, size by size, because a page shows at most 30,000 atoms" in page
    assert page.count('"names":') == 2


def test_the_first_of_each_size_come_before_the_second_of_any():
    assert shown_first([40] * 5 + [10] * 5, max_atoms=110) == [0, 1, 5, 6]
    assert shown_first([40] * 5, max_atoms=10) == [0]
    assert shown_first([10] * 5) == [0, 1, 2, 3, 4]


def test_bonds_of_an_icosahedron():
    """12 bonds from the centre and 30 along the edges, for any element."""
    for element, length in (("Cu", 3.6), ("Na", 5.2)):
        structure = _structure(Icosahedron(element, 2, latticeconstant=length))
        assert len(structure["bonds"]) == 42
        assert np.abs([np.mean(structure[axis]) for axis in "xyz"]).max() < 1e-3


def test_energies_of_atoms_sum_to_those_of_the_cluster():
    torch.manual_seed(0)
    dart, other = DART(hidden_channels=8), DART(hidden_channels=8)
    clusters = [Atoms("Ga13", ICOSAHEDRON.positions + 100.0), Atoms("Ga5", 1.1 * ICOSAHEDRON.positions[:5])]
    for model in (dart, Ensemble([dart, other]), LastLayerPosterior(dart, torch.eye(33))):
        predictor = Predictor(model)
        shares = predictor.atomic_energies(clusters)
        assert [len(part) for part in shares] == [13, 5]
        energy = predictor(clusters).energy.numpy()
        np.testing.assert_allclose([part.sum() for part in shares], energy, rtol=1e-5)
    assert Predictor(torch.nn.Linear(1, 1)).atomic_energies(clusters) is None


def test_bins_narrower_than_the_error_give_a_warning(tmp_path):
    """0.5 eV in ten bins: 0.05 eV, 1.15 kcal/mol; the size with one cluster has no neighbouring bins."""
    (tmp_path / "test_metrics.json").write_text('{"overall": {"mae_kcal_mol": 1.25}}')
    assert report.widths_of_bins(screening(), 5) == pytest.approx({13: 2.306}, abs=1e-3)
    with pytest.warns(UserWarning, match=r"13 atoms are 1\.15 kcal/mol wide, narrower .* \(1\.25 kcal/mol\)"):
        report.warn_of_narrow_bins(screening(), 10, Run(tmp_path))
    report.warn_of_narrow_bins(screening(), 5, Run(tmp_path))
