"""``pyg-clusters info``."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ase.data import chemical_symbols

from pyg_clusters.cli.parsing import parse, verb_parser
from pyg_clusters.frames import read_blocks
from pyg_clusters.training import load_model
from pyg_clusters.training.checkpoint import model_folder, read_configuration


def run(argv: Sequence[str]):
    """Prints what is in files of frames, runs and models."""
    parser = verb_parser(
        "info",
        "What is in a file of frames (sizes, elements, labels), in the folder of a run, or of a saved model.",
        "pyg-clusters info md.extxyz",
    )
    parser.add_argument("paths", type=Path, nargs="+", help="files of frames, folders of runs or models")
    for path in parse(parser, argv).paths:
        _describe_model(path) if path.is_dir() else _describe_frames(path)


def _describe_model(path: Path):
    folder = model_folder(path)
    model, configuration = load_model(folder), read_configuration(folder)
    print(f"{path}: {type(model).__name__}, {sum(weights.numel() for weights in model.parameters()):,} parameters")
    _print_pairs(configuration["init_args"])
    domain = getattr(model, "domain", None)
    if domain is not None and domain.known:
        symbols = ", ".join(chemical_symbols[number] for number in domain.atomic_numbers)
        _print_pairs({"trained on": "{} clusters of {} to {} atoms".format(symbols, *domain.size_range)})
    _print_pairs(configuration.get("notes", {}))
    metrics = path / "test_metrics.json"
    if metrics.is_file():
        _print_pairs({f"test {key}": value for key, value in json.loads(metrics.read_text())["overall"].items()})


def _describe_frames(path: Path):
    sizes: Counter[int] = Counter()
    elements: Counter[int] = Counter()
    periodic = 0
    for block in read_blocks(path):
        sizes.update(block.sizes.tolist())
        elements.update(block.z.tolist())
        periodic += int(block.periodic.sum())
    print(f"{path}: {sizes.total():,} frames")
    smallest, largest = min(sizes), max(sizes)
    _print_pairs(
        {
            "atoms": f"{smallest} to {largest}" if smallest < largest else smallest,
            "frames per size": ", ".join(f"{size}: {number}" for size, number in sorted(sizes.items())),
            "elements": ", ".join(f"{chemical_symbols[z]} ({number:,} atoms)" for z, number in elements.items()),
        }
    )
    if periodic:
        _print_pairs({"periodic cells": f"in {periodic} frames"})


def _print_pairs(pairs: dict):
    for key, value in pairs.items():
        print(f"  {key}: {value}")
