"""``predict`` end to end, from a frame store and from text, compared with the model and the readers alone."""

import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import iread

from pyg_clusters.cli import main
from pyg_clusters.frames import Frames, write_extxyz, write_store
from pyg_clusters.frames.xyz_reader import offsets_of_frames
from pyg_clusters.inference.run import Run
from pyg_clusters.shipped import shipped_folder

ATOMS = 50
COPIES = 20
ASE_FRAMES = 200
ROUNDS = 3
MODEL = "gallium"
RESULTS = "BENCH_RESULTS"
"""Environment variable that names the folder to which predict.json is written, if it is set."""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path, int]:
    """The shipped frames of Ga57 without their outermost atoms, repeated, as text and as a store."""
    folder = tmp_path_factory.mktemp("predict")
    once, text, store = (folder / name for name in ("once.extxyz", "md.extxyz", "md.h5"))
    write_extxyz(once, innermost(shipped_folder("gallium_clusters") / "gallium_md_57.extxyz"))
    text.write_bytes(once.read_bytes() * COPIES)
    return text, store, write_store(store, Frames.open(text))


def innermost(path: Path) -> Iterator[Atoms]:
    """Each frame reduced to the atoms nearest to its centre."""
    for block in Frames.open(path):
        for pos in np.split(block.pos, block.ptr[1:-1]):
            order = np.argsort(np.linalg.norm(pos - pos.mean(0), axis=1))[:ATOMS]
            yield Atoms(f"Ga{ATOMS}", pos[np.sort(order)])


def least_cpu_seconds(**functions) -> dict[str, tuple[float, float]]:
    """Shortest processor time of each function, over all threads and of this thread."""
    least = dict.fromkeys(functions, (float("inf"), float("inf")))
    for _ in range(ROUNDS):
        for name, function in functions.items():
            start, start_here = time.process_time(), time.thread_time()
            function()
            spent = time.process_time() - start, time.thread_time() - start_here
            least[name] = min(least[name], spent)
    return least


def processor() -> str:
    """Name of the processor from ``/proc/cpuinfo``."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def test_predict(files, tmp_path, capsys):
    text, store, number = files
    predictor = Run(MODEL).predictor("cpu")
    blocks = list(Frames.open(store).blocks(ahead=0))

    def predict(path: Path, suffix: str = ".parquet") -> Path:
        out = tmp_path / f"out{suffix}"
        assert main(["predict", MODEL, str(path), "--device", "cpu", "--out", str(out), "--overwrite"]) == 0
        return out

    seconds = least_cpu_seconds(
        model=lambda: [predictor(block.z, block.pos, block.ptr) for block in blocks],
        store=lambda: list(Frames.open(store).blocks(ahead=0)),
        text=lambda: list(Frames.open(text).blocks(ahead=0)),
        scan=lambda: offsets_of_frames(text, 16_000),
        ase=lambda: list(iread(text, f":{ASE_FRAMES}")),
        from_store=lambda: predict(store),
        from_text=lambda: predict(text),
    )
    rate = {name: (ASE_FRAMES if name == "ase" else number) / spent for name, (spent, _) in seconds.items()}
    here = {name: number / seconds[name][1] for name in ("from_store", "from_text")}
    slower = min(rate["text"], rate["model"])
    capsys.readouterr()
    with capsys.disabled():
        print(
            f"\n\npredict on {number} frames of {ATOMS} atoms, {torch.get_num_threads()} torch thread of "
            f"{os.cpu_count()} cores ({processor()}; load {os.getloadavg()[0]:.1f}), frames per second of processor "
            f"time, best of {ROUNDS}"
            f"\n  model alone, from arrays                     {rate['model']:10,.0f}"
            f"\n  predict from a store                         {rate['from_store']:10,.0f}"
            f"\n    fraction of the model alone                {rate['from_store'] / rate['model']:10.0%}"
            f"\n    with a core for the reading thread         {here['from_store'] / rate['model']:10.0%}"
            f"\n  predict from text                            {rate['from_text']:10,.0f}"
            f"\n    fraction of the slower of reader and model {rate['from_text'] / slower:10.0%}"
            f"\n    with a core for the reading thread         {here['from_text'] / slower:10.0%}"
            f"\n  baseline: reading text by ASE                {rate['ase']:10,.0f}"
            f"\n  reading text by ours                         {rate['text']:10,.0f}"
            f"\n    ratio                                      {rate['text'] / rate['ase']:10.1f}"
            f"\n  looking text through for its pieces          {rate['scan']:10,.0f}"
            f"\n  reading a store                              {rate['store']:10,.0f}"
        )
    if RESULTS in os.environ:
        single, once = tmp_path / "single.h5", text.with_name("once.extxyz")  # unrepeated frames, as columns are packed
        write_store(single, Frames.open(once), single=True)
        sizes = {"text": once, "store_single": single, "csv": predict(once, ".csv"), "parquet": predict(once)}
        computing = {f"{name}_computing_thread": value for name, value in here.items()}
        results = {
            "hardware": f"{processor()}, one core of {os.cpu_count()}",
            "versions": f"Python {platform.python_version()}, torch {torch.__version__}",
            "model": MODEL,
            "frames": number,
            "atoms": ATOMS,
            "frames_per_cpu_second": {name: round(value) for name, value in (rate | computing).items()},
            "bytes_per_frame": {
                "store": round(store.stat().st_size / number, 1),
                **{name: round(path.stat().st_size * COPIES / number, 1) for name, path in sizes.items()},
            },
        }
        folder = Path(os.environ[RESULTS])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "predict.json").write_text(json.dumps(results, indent=1) + "\n")
