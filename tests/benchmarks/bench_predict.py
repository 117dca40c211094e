"""``predict`` end to end, from a frame store and from text, beside the model and the readers alone."""

import os
import time
from pathlib import Path

import pytest
import torch
from ase.io import iread

from pyg_clusters.cli.main import main
from pyg_clusters.cli.runs import predictor_of
from pyg_clusters.datasets.shipped import shipped_folder
from pyg_clusters.frames import Frames, write_extxyz, write_store
from pyg_clusters.frames.atoms import read_atoms

COPIES = 20
ASE_FRAMES = 200
ROUNDS = 3
MODEL = "gallium"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path, int]:
    """The shipped frames of Ga57 some times over, as text and as a store, and their number."""
    folder = tmp_path_factory.mktemp("predict")
    shipped = shipped_folder("gallium_clusters") / "gallium_md_57.extxyz.xz"
    write_extxyz(folder / "once.extxyz", (frame.atoms for frame in read_atoms([shipped])))
    text, store = folder / "md.extxyz", folder / "md.h5"
    text.write_bytes((folder / "once.extxyz").read_bytes() * COPIES)
    number = write_store(store, Frames.open(text))
    return text, store, number


def least_cpu_seconds(**functions) -> dict[str, float]:
    """Least processor time of each, all threads together: other work on the machine does not count."""
    least = dict.fromkeys(functions, float("inf"))
    for _ in range(ROUNDS):
        for name, function in functions.items():
            start = time.process_time()
            function()
            least[name] = min(least[name], time.process_time() - start)
    return least


def test_predict(files, tmp_path, capsys):
    text, store, number = files
    predictor = predictor_of(Path(MODEL), "cpu")
    blocks = list(Frames.open(store).blocks(ahead=0))
    out = tmp_path / "out.parquet"

    def predict(path: Path):
        assert main(["predict", MODEL, str(path), "--device", "cpu", "--out", str(out), "--overwrite"]) == 0

    seconds = least_cpu_seconds(
        model=lambda: [predictor(block.z, block.pos, block.ptr) for block in blocks],
        store=lambda: list(Frames.open(store).blocks(ahead=0)),
        text=lambda: list(Frames.open(text).blocks(ahead=0)),
        ase=lambda: list(iread(text, f":{ASE_FRAMES}")),
        from_store=lambda: predict(store),
        from_text=lambda: predict(text),
    )
    rate = {name: (ASE_FRAMES if name == "ase" else number) / value for name, value in seconds.items()}
    slower = min(rate["text"], rate["model"])
    capsys.readouterr()
    with capsys.disabled():
        print(
            f"\n\npredict on {number} frames of 57 atoms, {torch.get_num_threads()} torch thread of {os.cpu_count()} "
            f"cores, frames per second of processor time, best of {ROUNDS}"
            f"\n  model alone, from arrays                     {rate['model']:10,.0f}"
            f"\n  predict from a store                         {rate['from_store']:10,.0f}"
            f"\n    fraction of the model alone                {rate['from_store'] / rate['model']:10.0%}"
            f"\n  predict from text                            {rate['from_text']:10,.0f}"
            f"\n    fraction of the slower of reader and model {rate['from_text'] / slower:10.0%}"
            f"\n  baseline: reading text by ASE                {rate['ase']:10,.0f}"
            f"\n  reading text by ours                         {rate['text']:10,.0f}"
            f"\n    ratio                                      {rate['text'] / rate['ase']:10.1f}"
            f"\n  reading a store                              {rate['store']:10,.0f}"
        )
