"""Fixtures of the benchmarks."""

import time
from collections.abc import Callable

import pytest

from pyg_clusters.datasets import GalliumClusters

collect_ignore = ["peer_nep.py"]
"""A program for an environment of its own, with TorchNEP."""


def pytest_configure(config):
    config.addinivalue_line("python_files", "bench_*.py")


@pytest.fixture(autouse=True)
def on_one_thread(one_thread):
    """Run the timed functions on one thread."""


@pytest.fixture(scope="session")
def minima(tmp_path_factory) -> GalliumClusters:
    """The shipped gallium minima."""
    return GalliumClusters(tmp_path_factory.mktemp("gallium"))


@pytest.fixture
def least_seconds(benchmark) -> Callable[..., dict[str, float]]:
    """Time several functions in alternation, the first with pytest-benchmark, and return the shortest time of each.

    Times are processor times of this process, which runs on one thread. One round runs every function once, so that a
    disturbance of the machine affects all of them.
    """

    def measure(rounds: int, **functions: Callable[[], object]) -> dict[str, float]:
        (name, ours), *others = functions.items()
        seconds: dict[str, list[float]] = {other: [] for other, _ in others}
        seconds[name] = []

        def run_others():
            for other, function in others:
                start = time.process_time()
                function()
                seconds[other].append(time.process_time() - start)

        def run_ours():
            start = time.process_time()
            ours()
            seconds[name].append(time.process_time() - start)

        benchmark.pedantic(run_ours, setup=run_others, rounds=rounds, warmup_rounds=1)
        least = {key: min(values) for key, values in seconds.items()}
        benchmark.extra_info.update({f"{key} (s)": value for key, value in least.items()})
        return least

    return measure
