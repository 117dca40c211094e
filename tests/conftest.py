"""Fixtures of all tests."""

import gc
import os
import signal
import sys
from importlib import import_module
from unittest.mock import Mock

# The test data are too small to gain from threads, and a forked process loses those of its parent.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

# Processes that a shell starts in the background ignore SIGINT; the tests of signals need Python's handler.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection():
    gc.disable()  # imported modules stay in memory


def pytest_collection_finish():
    """Exclude imported modules, a million objects, from later garbage collections."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def parsers_of_trainings():
    """Build each training parser only once; building it takes half of the time of a small training run."""
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
    """Seeded random-number generator, new for each test."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def without_figures(request, monkeypatch):
    """Create figures without drawing them, which takes most of the time of a command; tests marked ``figures`` draw.

    Figures of training runs are not even created.
    """
    if not request.node.get_closest_marker("figures"):
        for module in ("plots", "report"):
            monkeypatch.setattr(f"pyg_clusters.analysis.{module}.render", lambda figure, file_format="png": b"")
        if evaluation := sys.modules.get("pyg_clusters.evaluation.evaluate"):
            monkeypatch.setattr(evaluation, "run_figures", lambda *arguments: {})


@pytest.fixture
def no_report(monkeypatch):
    """Skip the report of a screening, which takes longer than the rest and is tested elsewhere."""
    monkeypatch.setattr(import_module("pyg_clusters.screening.screen"), "make_report", Mock())


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium."""
    from helpers import CHROMIUM

    playwright = pytest.importorskip("playwright.sync_api", reason="playwright (extra dev) is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--enable-unsafe-swiftshader"])
        yield browser
        browser.close()
