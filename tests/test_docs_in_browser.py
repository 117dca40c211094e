"""Pages of the documentation in headless Chromium without a network: no errors, nothing cut off, formulas rendered."""

from pathlib import Path

import pytest
from helpers import needs_chromium

HTML = Path(__file__).parents[1] / "docs/_build/html"
pytestmark = [
    needs_chromium,
    pytest.mark.skipif(not (HTML / "index.html").exists(), reason="the documentation is not built (make docs)"),
]

PAGES = (
    "index",
    "get_started/tutorial",
    "get_started/tutorial_python",
    "how_to/own_data",
    "explanation/conventions",
    "explanation/dart",
    "results/screening_model",
    "results/features",
    "reference/models",
    "reference/options",
    "reference/commands/screen",
)
CUT = """() => [...document.querySelectorAll("article pre")]
    .filter((block) => block.scrollWidth > block.clientWidth + 1).map((block) => block.textContent)"""
BROKEN = "() => [...document.images].filter((image) => !image.naturalWidth).map((image) => image.src)"


@pytest.fixture
def open_page(browser):
    """A function that opens a page at a width, and the messages of the console and of failed requests."""
    opened = []

    def opens(name: str, width: int):
        page, messages = browser.new_page(viewport={"width": width, "height": 1000}), []
        opened.append(page)
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("requestfailed", lambda request: messages.append(request.url))
        page.goto((HTML / f"{name}.html").as_uri())
        return page, messages

    yield opens
    for page in opened:
        page.close()


@pytest.mark.parametrize("width", [1400, 400])
@pytest.mark.parametrize("name", PAGES)
def test_page(open_page, name, width):
    page, messages = open_page(name, width)
    assert messages == []
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert page.evaluate(BROKEN) == []
    if width == 1400:
        assert page.evaluate(CUT) == []


def test_formulas_are_drawn_without_a_network(open_page):
    page, _ = open_page("explanation/conventions", 1400)
    formulas = page.locator("article math")
    assert formulas.count() >= 5
    shell = formulas.filter(has_text="6.3").first
    assert "≤" in shell.text_content() or "<" in shell.text_content()
    assert "\\" not in "".join(formulas.all_text_contents())
    assert shell.bounding_box()["width"] > 20
    assert page.locator("script[src^=http]").count() == 0


def test_constants_of_the_reference_keep_their_descriptions(open_page):
    page, _ = open_page("reference/options", 1400)
    entry = page.locator("dl:has(> dt#pyg_clusters\\.options\\.screening\\.VACUUM) > dd")
    assert entry.text_content().strip() == (
        "Default vacuum in Å on each side of a cluster: periodic images are 15 Å apart."
    )


def test_tutorial_has_outputs_and_figures(open_page):
    page, _ = open_page("get_started/tutorial", 1400)
    outputs = page.locator(".cell_output pre").all_text_contents()
    assert any("1,000 frames" in text for text in outputs)
    assert page.locator(".cell_output img").count() == 1
    assert not [text for text in page.locator(".cell_input pre").all_text_contents() if "%%" in text]
