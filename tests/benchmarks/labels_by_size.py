"""Time and memory of shieldings by size: ``OMP_NUM_THREADS=1 python tests/benchmarks/labels_by_size.py``.

A random sodium cluster of each size with a large tight-binding gap is labelled in its own process. The script prints
the processor seconds of each step, their share of the total, and the exponent relative to the previous size.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np
from ase import Atoms

from pyg_clusters.labels import ShieldingLabeller, shielding, tight_binding_gap
from pyg_clusters.labels.dft import shielding_tensor
from pyg_clusters.labels.dft.density_fitting import FittedIntegrals
from pyg_clusters.labels.dft.kohn_sham import IntegrationGrid
from pyg_clusters.labels.dft.shielding_tensor import MagneticResponse
from pyg_clusters.structures import sblda

GROWN = 500
"""Number of random clusters of a size; the one with the largest tight-binding gap is labelled."""

KB = 1e-6
"""One kilobyte in GB."""

STEPS: dict[str, list[tuple[object, str]]] = {
    "fitted integrals": [(FittedIntegrals, "__init__")],
    "Coulomb": [(FittedIntegrals, "coulomb")],
    "exchange": [(FittedIntegrals, "exchange")],
    "exchange and correlation on the grid": [(IntegrationGrid, "potential")],
    "test of stability": [(shielding, "triplet_stability")],
    "first-order Coulomb and exchange": [(shielding_tensor, "coulomb_exchange")],
    "first order on the grid": [(shielding_tensor, "exchange_correlation")],
    "response": [(MagneticResponse, "__init__"), (MagneticResponse, "solve")],
    "integrals of each nucleus": [(shielding_tensor, "diamagnetic"), (shielding_tensor, "paramagnetic")],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[14, 20, 30, 40])
    parser.add_argument("--one", type=int, help="label a cluster of this size here, and print what it took as JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(label(options.one)))
        return
    before: tuple[int, dict[str, float]] | None = None
    for size in options.sizes:
        command = [sys.executable, __file__, "--one", str(size)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"\nNa{size}: {found['seconds']['all']:.0f} s, {found['memory']:.1f} GB, {found['cycles']} cycles")
        for step, seconds in found["seconds"].items():
            line = f"  {step:<38} {seconds:8.1f} s {seconds / found['seconds']['all']:6.0%}"
            if before and before[1][step] and seconds:
                line += f"   N^{math.log(seconds / before[1][step]) / math.log(size / before[0]):.1f}"
            print(line, flush=True)
        before = size, found["seconds"]


def label(size: int) -> dict:
    """Processor time of each step of the label of a cluster."""
    positions = max((sblda(size, rng=np.random.default_rng(seed)) for seed in range(GROWN)), key=tight_binding_gap)
    seconds, calls = dict.fromkeys([*STEPS, "rest", "all"], 0.0), defaultdict(int)

    def timed(function: Callable, step: str) -> Callable:
        def call(*arguments, **options):
            start = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                seconds[step] += time.process_time() - start
                calls[step] += 1

        return call

    for step, functions in STEPS.items():
        for owner, name in functions:
            setattr(owner, name, timed(getattr(owner, name), step))
    labeller = ShieldingLabeller(spin_test="stability", label_unstable=True)
    labelled = timed(labeller, "all")(Atoms(["Na"] * size, positions)).atoms
    assert np.isfinite(labelled.arrays["nmr_shielding"]).all()
    seconds["rest"] = 2 * seconds["all"] - sum(seconds.values())
    memory = KB * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "memory": memory, "cycles": calls["exchange"]}


if __name__ == "__main__":
    main()
