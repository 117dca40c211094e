from html import escape
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from pyg_clusters.analysis.plots import (
    energy_along_trajectory,
    error_by_size,
    learning_curve,
    parity,
    picked_histogram,
    save_figure,
)
from pyg_clusters.analysis.report import MISSING, Report, literal
from pyg_clusters.errors import InputError
from pyg_clusters.metrics import metrics_by_size
from pyg_clusters.units import KCAL_PER_MOL

pytestmark = pytest.mark.figures

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Parser of a page that checks that tags are closed in the reverse order of opening."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.words: dict[str, list[str]] = {}
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and data.strip():
            self.words.setdefault(self.open[-1], []).append(data.strip())

    def attributes(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def energies() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = np.repeat([31, 46, 57], 20)
    target = -2.45 * sizes + rng.normal(size=60)
    return target, target + 0.2 * rng.normal(size=60), sizes


def full_report() -> Report:
    target, predicted, sizes = energies()
    report = Report("Ga & <clusters>")
    report.text('## What <b>was</b> done\n\nA **bold** word, `a < b` & "quotes".\n\n- first\n- second')
    report.table(["size", "MAE / kcal/mol", "<note>"], [[31, 3.25, "<i>good</i>"], [32, float("nan"), None]], "A & B")
    report.figure(parity(target, predicted, sizes), 'Predicted "and" <true> energies.')
    return report


def test_page_is_well_formed_and_self_contained():
    html = full_report().html()
    page = Page(html)
    assert html.startswith("<!DOCTYPE html>")
    assert page.attributes("html") == [{"lang": "en"}]
    assert page.words["title"] == ["Ga & <clusters>"]
    assert not {"script", "link"} & {tag for tag, _ in page.tags}
    resources = [a[key] for _, a in page.tags for key in ("src", "href", "srcset", "poster", "data") if key in a]
    assert [resource[:11] for resource in resources] == ["data:image/"]
    assert [word for word in ("http:", "https:", "url(", "@import") if word in html] == []


def test_everything_is_escaped():
    page = Page(full_report().html())
    names = {tag for tag, _ in page.tags}
    assert not names & {"b", "i", "clusters", "note", "true"}
    assert page.words["h2"] == ["What <b>was</b> done"]
    assert page.words["code"] == ["a < b"]
    assert page.words["strong"] == ["bold"]
    assert page.words["li"] == ["first", "second"]
    assert page.words["th"][-1] == "<note>"
    assert page.words["td"] == ["31", "3.250", "<i>good</i>", "32", MISSING, MISSING]
    assert page.words["caption"] == ["A & B"]


def test_pictures_have_a_text_and_a_size():
    images = Page(full_report().html()).attributes("img")
    assert images[0]["alt"] == 'Predicted "and" <true> energies.'
    assert all(int(image["width"]) > 100 and int(image["height"]) > 100 for image in images)


def test_same_content_gives_the_same_file(tmp_path):
    for name in ("a.html", "b.html"):
        full_report().write(tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    report = Report("old")
    report.write(path)
    before = path.read_bytes()
    report.text("new")

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(InputError, match=r"report\.html: No space left on device"):
        report.write(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_table_rows_must_be_complete():
    with pytest.raises(ValueError, match="row 1 of a table has 1 values for 2 columns"):
        Report("t").table(["a", "b"], [[1, 2], [3]], "c")


def test_parity_states_its_errors_and_units():
    target, predicted, sizes = energies()
    figure = parity(target, predicted, sizes)
    points, errors, _ = figure.axes
    error = (predicted - target) * KCAL_PER_MOL
    assert f"MAE {np.abs(error).mean():.2f} kcal/mol" in points.texts[0].get_text()
    np.testing.assert_allclose(points.collections[0].get_offsets()[:, 0], target / sizes)
    assert "eV per atom" in points.get_xlabel()
    assert "kcal mol⁻¹ per cluster" in errors.get_xlabel()
    assert sum(patch.get_height() for patch in errors.patches) == 60


def test_learning_curve_marks_the_best_epoch():
    axes = learning_curve(np.arange(5), [9, 7, 5, 4, 3], [9, 8, np.nan, 5, 6]).axes[0]
    lines = {line.get_label(): line.get_xdata() for line in axes.lines}
    assert list(lines["lowest: 5 kcal/mol, epoch 3"]) == [3]
    assert axes.get_yscale() == "log"


def test_bars_by_size():
    target, predicted, sizes = energies()
    rows = metrics_by_size(predicted, target, sizes)
    upper, lower = error_by_size(rows).axes
    assert [bar.get_height() for bar in upper.patches] == pytest.approx([row["mae_kcal_mol"] for row in rows])
    assert [bar.get_height() for bar in lower.patches] == [20, 20, 20]


@pytest.mark.parametrize(("count", "panels"), [(1, 1), (2, 2), (5, 1)])
def test_trajectory_has_a_panel_for_each_of_a_few_sizes(count, panels):
    sizes = np.repeat(np.arange(31, 31 + count), 4)
    energy = np.tile([-3.0, -1.0, -4.0, -2.0], count) * sizes
    figure = energy_along_trajectory(np.arange(len(sizes)), energy, [0, 2], truth=energy, sizes=sizes)
    assert len(figure.axes) == panels
    picked = next(line for line in figure.axes[0].lines if line.get_label() == "candidates (2)")
    np.testing.assert_allclose(picked.get_ydata(), [31.0, 0.0])


@pytest.mark.parametrize(("numbers", "joined"), [(range(20), True), (range(0, 200, 10), True), ((3, 4, 50, 99), False)])
def test_few_frames_of_a_trajectory_are_points(numbers, joined):
    """A line through the lowest of many frames would not be a trajectory."""
    energy = np.arange(len(numbers), dtype=float)
    axes = energy_along_trajectory(np.array(numbers), energy, [0], energy + 1, title="of 1,000").axes[0]
    styles = [line.get_linestyle() for line in axes.lines if line.get_label() in ("true", "predicted")]
    assert styles == (["-", "-"] if joined else ["None", "None"])
    assert axes.get_title(loc="left") == "of 1,000"


def test_histogram_counts_all_and_the_picked():
    energy = np.linspace(-10, -5, 50)
    axes = picked_histogram(energy, energy < -9).axes[0]
    by_color = {}
    for bar in axes.patches:
        by_color.setdefault(to_hex(bar.get_facecolor()), []).append(bar.get_height())
    assert sorted(sum(heights) for heights in by_color.values()) == [10, 50]


def test_unknown_true_energies_are_omitted():
    truth = np.array([np.nan, -3.0, -2.0])
    axes = energy_along_trajectory([0, 1, 2], np.array([-1.0, -2.0, -1.5]), [1], truth).axes[0]
    true = next(line for line in axes.lines if line.get_label() == "true")
    np.testing.assert_array_equal(true.get_ydata(), [np.nan, 0.0, 1.0])


def test_nothing_picked():
    energy = np.array([-1.0, -2.0, -1.5])
    assert energy_along_trajectory([0, 1, 2], energy, []).axes
    assert picked_histogram(energy, []).axes


@pytest.mark.parametrize(("suffix", "head"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_save_figure(tmp_path, suffix, head):
    path = tmp_path / "figures" / f"curve.{suffix}"
    figure = learning_curve([0, 1], [2.0, 1.0], [3.0, 2.0])
    assert isinstance(figure, Figure)
    save_figure(figure, path)
    assert path.read_bytes().startswith(head)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "name", ["**md**", "`md`", "a\n\n## b", "- a", "<b>md</b>", "[md](x)", "a\x1b[31m", "\u202emd"]
)
def test_names_are_shown_as_they_are(name):
    report = Report("Names")
    report.text(f"Read from {literal(name)} with `{literal(name)}`.")
    report.table(["file"], [[name]], "Files.")
    shown = escape(name.encode("unicode_escape").decode() if not name.isprintable() else name)
    assert f"<p>Read from {shown} with <code>{shown}</code>.</p>" in report.html()
    assert f"<td>{shown}</td>" in report.html()
