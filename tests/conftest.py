"""Fixtures of all tests."""

import gc
import os
import signal
import sys

# The data are too small for threads, which wait busily for each other, and a forked process has none of its parent's.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

# Processes that a shell starts in the background ignore SIGINT; the tests of signals need Python's own handler.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection():
    gc.disable()  # what is imported stays


def pytest_collection_finish():
    """Leave what has been imported, a million objects, out of all later collections of garbage."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def parsers_of_trainings():
    """Build each parser of trainings once, which takes half of the time of a small one, not for every command."""
    module = sys.modules.get("pyg_clusters.training.train")
    if module is None:
        yield
        return
    build, parsers = module.TrainCLI.setup_parser, {}

    def setup_parser(cli, *arguments):
        if cli.subclass_mode_model not in parsers:
            build(cli, *arguments)
            parsers[cli.subclass_mode_model] = cli.parser
        cli.parser = parsers[cli.subclass_mode_model]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.TrainCLI, "setup_parser", setup_parser)
        yield


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded source of random numbers, fresh for each test."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def without_figures(request, monkeypatch):
    """Make figures but do not draw them, which takes most of the time of a command; tests marked ``figures`` do.

    Those of trainings, which every training would make, are not even made.
    """
    if not request.node.get_closest_marker("figures"):
        for module in ("plots", "report"):
            monkeypatch.setattr(f"pyg_clusters.analysis.{module}.render", lambda figure, file_format="png": b"")
        if evaluation := sys.modules.get("pyg_clusters.evaluation.evaluate"):
            monkeypatch.setattr(evaluation, "run_figures", lambda *arguments: {})


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium."""
    from helpers import CHROMIUM

    playwright = pytest.importorskip("playwright.sync_api", reason="playwright (extra dev) is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--enable-unsafe-swiftshader"])
        yield browser
        browser.close()
