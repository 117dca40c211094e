"""Fixtures of all tests."""

import os
import signal

# The data are too small for threads, which wait busily for each other, and a forked process has none of its parent's.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

# Processes that a shell starts in the background ignore SIGINT; the tests of signals need Python's own handler.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded source of random numbers, fresh for each test."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def without_figures(request, monkeypatch):
    """Make figures but do not draw them, which takes most of the time of a command; tests marked ``figures`` do."""
    if not request.node.get_closest_marker("figures"):
        for module in ("plots", "report"):
            monkeypatch.setattr(f"pyg_clusters.analysis.{module}.render", lambda figure, file_format="png": b"")


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium."""
    from helpers import CHROMIUM

    playwright = pytest.importorskip("playwright.sync_api", reason="playwright (extra dev) is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--enable-unsafe-swiftshader"])
        yield browser
        browser.close()
