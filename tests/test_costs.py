"""The page of costs equals the output of its script for the measured values."""

import json
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_page_is_generated_from_the_measurements():
    script = runpy.run_path(str(ROOT / "docs/make_costs.py"))
    measured = json.loads((ROOT / "tests/benchmarks/results/predict.json").read_text())
    assert (ROOT / "docs/results/costs.md").read_text() == script["page"](measured)


def test_estimates_are_products():
    script = runpy.run_path(str(ROOT / "docs/make_costs.py"))
    assert script["times"](1e6 / 3600) == ["1", "1,000", "1,000,000"]
    assert script["cores"](1000.0, 3600) == ["1", "278", "277,778"]
    assert script["spaces"](1300.0) == ["1.3 GB", "1.3 TB", "1.3 PB"]
