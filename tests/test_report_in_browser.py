"""The report of ``screen`` in headless Chromium: nothing from the network, no error, interactive 3D structures."""

import io

import numpy as np
import pytest
import torch
from helpers import atoms_of, needs_chromium, save_dart
from PIL import Image

from pyg_clusters.cli import main
from pyg_clusters.frames import write_extxyz
from pyg_clusters.inference import Predictor
from pyg_clusters.models.checkpoint import load_model
from pyg_clusters.testing import random_clusters

pytest.importorskip("chemiscope", reason="chemiscope (extra report) is not installed")
pytestmark = needs_chromium

SIZES = (31, 40)
PATIENCE = 120_000
"""Milliseconds, for a busy machine; an idle one takes three seconds."""
PLOT = """() => {
  const find = (root) => {
    for (const element of root.querySelectorAll("*")) {
      if (element.classList.contains("js-plotly-plot")) return element;
      const inside = element.shadowRoot && find(element.shadowRoot);
      if (inside) return inside;
    }
  };
  return find(document);
}"""
PLACE = """([plot, x, y]) => {
  const box = plot.getBoundingClientRect(), {xaxis, yaxis} = plot._fullLayout;
  return [box.x + xaxis._offset + xaxis.l2p(x), box.y + yaxis._offset + yaxis.l2p(y)];
}"""


@pytest.fixture(scope="module")
def screened(tmp_path_factory):
    """A folder with the report of four candidates each of Ga31 and Ga40, and the model."""
    folder = tmp_path_factory.mktemp("screened")
    save_dart(folder / "model", 31, 40, hidden_channels=16)
    z, pos, ptr = random_clusters(SIZES * 6, 31, torch.Generator().manual_seed(1))
    frames = atoms_of(z, pos, ptr)
    write_extxyz(folder / "</script><b>md.extxyz", frames)
    arguments = [folder / "model", folder / "</script><b>md.extxyz", "--top", "4", "--out", folder / "out"]
    assert main(["screen", *map(str, arguments)]) == 0
    return folder


def opened(browser, screened, width: int, height: int):
    """The loaded report, with its errors and requests in ``errors`` and ``requests``."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(PATIENCE)
    page.errors, page.requests = [], []
    page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto((screened / "out/report.html").as_uri())
    page.wait_for_function("window.viewer")
    page.locator(".viewer").scroll_into_view_if_needed()
    return page


@pytest.fixture(scope="module")
def page(screened, browser):
    return opened(browser, screened, 1280, 900)


def drawn(page) -> np.ndarray:
    """Greyscale image of the structure."""
    picture = page.locator("#viewer-structure canvas").first.screenshot()
    return np.asarray(Image.open(io.BytesIO(picture)).convert("L"), dtype=int)


def camera(page) -> np.ndarray:
    """Direction from the structure to the camera."""
    eye = page.evaluate("viewer.saveSettings().structure[0].camera.eye")
    return np.array([eye[axis] for axis in "xyz"]) / np.linalg.norm([eye[axis] for axis in "xyz"])


def test_it_loads_without_network_and_without_an_error(page, screened):
    assert page.errors == []
    assert [url for url in page.requests if not url.startswith(("data:", "blob:"))] == [page.url]
    assert page.url.startswith("file:") and page.locator("#viewer-warning").is_hidden()
    assert page.locator("b").count() == 0


def test_every_button_has_a_name_and_nothing_is_clipped(page):
    nameless = """() => {
      const found = [];
      const walk = (root) => root.querySelectorAll("*").forEach((element) => {
        if (element.tagName === "BUTTON" && !element.textContent.trim() && !element.ariaLabel && !element.title)
          found.push(element.outerHTML);
        if (element.shadowRoot) walk(element.shadowRoot);
      });
      walk(document);
      return found;
    }"""
    page.wait_for_function(f"({nameless})().length === 0")
    clipped = "() => [...document.querySelectorAll('.table')].filter((box) => box.scrollWidth > box.clientWidth).length"
    assert page.evaluate(clipped) == 0
    assert page.locator("a[href='candidates.csv']").count() == 1


def test_a_structure_turns_when_dragged(page):
    before, eye = drawn(page), camera(page)
    box = page.locator("#viewer-structure canvas").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 120, y + 30, steps=4)
    page.mouse.up()
    page.wait_for_timeout(200)
    assert np.degrees(np.arccos(eye @ camera(page))) > 20
    assert (np.abs(drawn(page) - before) > 40).mean() > 0.02
    assert page.errors == []


def test_clicking_a_point_shows_its_structure(page, screened):
    """The sixth candidate is the second Ga40: its index, size and atomic energies are shown."""
    data = page.evaluate("viewer._dataset.properties")
    assert data["rank"]["values"] == [1, 2, 3, 4] * 2 and data["atoms"]["values"] == [31] * 4 + [40] * 4
    before = drawn(page)
    plot = page.evaluate_handle(PLOT)
    above = data["predicted energy above the lowest"]["values"]
    x, y = page.evaluate(PLACE, [plot, 2, above[5]])
    page.mouse.click(x, y)
    number = page.locator("#viewer-info input[type=number]").first
    page.wait_for_function("viewer.saveSettings().pinned[0] == 5")
    page.wait_for_timeout(500)
    assert number.input_value() == "5"
    assert (np.abs(drawn(page) - before) > 40).mean() > 0.02
    assert page.errors == []


def test_the_energies_of_the_atoms_are_those_of_the_model(page, screened):
    data = page.evaluate("viewer._dataset")
    shares = np.array(data["properties"]["energy of the atom"]["values"])
    ends = np.cumsum([0, *data["properties"]["atoms"]["values"]])
    energies = [shares[first:last].sum() for first, last in zip(ends, ends[1:], strict=False)]
    np.testing.assert_allclose(energies, data["properties"]["predicted energy"]["values"], atol=1e-3)
    shown = np.array(data["properties"]["energy above the mean / meV"]["values"])
    np.testing.assert_allclose(shown, 1000 * (shares - shares.mean()), atol=0.1)
    first = data["structures"][5]
    pos = np.array([first[axis] for axis in "xyz"]).T
    z = np.full((1, first["size"]), 31)
    energy = Predictor(load_model(screened / "model"))(z, pos[None]).energy
    assert float(energy) == pytest.approx(energies[5], abs=0.05)  # positions are rounded to 0.001 Å


def test_it_can_be_read_on_a_phone(screened, browser):
    """The map is above the structure, and nothing is wider than the screen."""
    page = opened(browser, screened, 400, 800)
    upper, lower = (page.locator(f".viewer-{part}").bounding_box() for part in ("map", "structure"))
    assert upper["y"] + upper["height"] <= lower["y"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
