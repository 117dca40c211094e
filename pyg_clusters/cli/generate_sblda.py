"""``pyg-clusters generate sblda``."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from rich.console import Console
from rich.progress import track

from pyg_clusters.errors import InputError
from pyg_clusters.frames import write_extxyz
from pyg_clusters.frames.outputs import open_output
from pyg_clusters.options.parsing import parse, parse_sizes, verb_parser
from pyg_clusters.structures import sblda

SODIUM = {"mu1": 3.50, "mu2": 3.60}


def run(argv: Sequence[str]):
    """Writes random clusters."""
    parser = verb_parser(
        "generate sblda",
        "Random clusters by the second-order bond-length-distribution algorithm: every atom is added at normally "
        "distributed distances from its nearest and next-nearest neighbour. The seed of each cluster is written beside "
        "it.",
        "pyg-clusters generate sblda --element Na --sizes 14:30:2,40 --count 200 --seed 0 --out na.extxyz",
    )
    parser.add_argument("--element", type=str, default="Na", help="symbol of the element")
    parser.add_argument("--sizes", type=str, required=True, help="numbers of atoms: 14:30:2,40 is 14, 16, ..., 30, 40")
    parser.add_argument("--count", type=int, default=200, help="clusters of each size")
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other clusters")
    parser.add_argument("--mu1", type=float | None, help="mean nearest distance in Å; 3.50 for Na")
    parser.add_argument("--mu2", type=float | None, help="mean next-nearest distance in Å; 3.60 for Na")
    parser.add_argument("--sigma1", type=float, default=0.1, help="its standard deviation in Å")
    parser.add_argument("--sigma2", type=float, default=0.1, help="its standard deviation in Å")
    parser.add_argument("--overwrite", action="store_true", help="replace the file that is there")
    parser.add_argument("--out", type=Path, required=True, help="clusters.extxyz, or .extxyz.xz")
    options = parse(parser, argv)
    sizes = parse_sizes(options.sizes)
    if options.element not in atomic_numbers:
        raise InputError(f"--element: {options.element!r} is no chemical element")
    if options.count < 1:
        raise InputError(f"--count must be at least 1, got {options.count}")
    if options.seed < 0:
        raise InputError(f"--seed must not be negative, got {options.seed}")
    lengths = {name: getattr(options, name) for name in ("mu1", "mu2", "sigma1", "sigma2")}
    if options.element == "Na":
        lengths |= {name: value for name, value in SODIUM.items() if lengths[name] is None}
    if None in lengths.values():
        raise InputError(f"--mu1 and --mu2 have no default for {options.element}: give its bond lengths in Å")

    console = Console(stderr=True)
    frames = generate(options.element, sizes, options.count, options.seed, lengths)
    total = len(sizes) * options.count
    progress = track(frames, "clusters", total, console=console, transient=True, disable=not console.is_terminal)
    with open_output(options.out, ("generate", "sblda", *argv), overwrite=options.overwrite):
        write_extxyz(options.out, progress)
    print(f"{total} clusters of {options.element} in {options.out}")


def generate(element: str, sizes: Sequence[int], count: int, seed: int, lengths: dict[str, float]) -> Iterator[Atoms]:
    """Clusters with the seed of each in its ``info``: ``sblda(n, rng=np.random.default_rng(seed), ...)`` makes it."""
    for size in sizes:
        for number in range(count):
            own = frame_seed(seed, size, number)
            pos = sblda(size, **lengths, rng=np.random.default_rng(own))
            yield Atoms([element] * size, pos, info={"generator": "sblda", "seed": own, **lengths})


def frame_seed(seed: int, size: int, number: int) -> int:
    """Seed of a cluster, which depends on nothing but the seed of all, its size and its number among those."""
    return int(np.random.SeedSequence([seed, size, number]).generate_state(1, np.uint64)[0] >> 1)
