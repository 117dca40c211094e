"""Resident memory of training SchNet on clusters of sodium: ``python tests/benchmarks/memory_of_node_schnet.py``.

Each model takes some steps of Adam in its own process. The script prints the peak resident memory of the process, and
the memory before the first step.
"""

import argparse
import json
import resource
import subprocess
import sys

import numpy as np
import torch
from schnets import GET_SCHNETPACK, node_schnet, pyg_schnet, schnetpack_schnet, sodium_clusters

from pyg_clusters.models import NodeSchNet

STEPS = 5
GIB = 1024**2  # the system counts in kB


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--size", type=int, default=40)
    parser.add_argument("--model", choices=["NodeSchNet", "PyG", "SchNetPack"], help="train this one here")
    options = parser.parse_args()
    if options.model:
        print(json.dumps(train(options.model, options.clusters, options.size)))
        return
    print(f"{STEPS} steps of Adam on {options.clusters} clusters of {options.size} atoms, one thread")
    for model in ("NodeSchNet", "PyG", "SchNetPack"):
        sizes = ["--clusters", str(options.clusters), "--size", str(options.size)]
        command = [sys.executable, __file__, "--model", model, *sizes]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        if found is None:
            print(f"  {GET_SCHNETPACK}")
            continue
        print(
            f"  {model:<12} {found['peak']:6.2f} GiB at most, {found['peak'] - found['before']:6.2f} more than before "
            f"the first step ({found['pairs']:,} pairs)"
        )


def train(name: str, number: int, size: int) -> dict[str, float] | None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    clusters = sodium_clusters(np.full(number, size), np.random.default_rng(0))
    ours = NodeSchNet()
    if name == "NodeSchNet":
        built = ours, node_schnet(ours, clusters)
    else:
        built = pyg_schnet(ours, clusters) if name == "PyG" else schnetpack_schnet(ours, clusters)
    if built is None:
        return None
    model, sums = built
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIB
    for _ in range(STEPS):
        optimizer.zero_grad()
        sums().square().mean().backward()
        optimizer.step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIB
    return {"before": before, "peak": peak, "pairs": clusters.edge_weight.numel()}


if __name__ == "__main__":
    main()
