"""Writes ``costs.md`` from what ``tests/benchmarks/bench_predict.py`` measured: ``python docs/make_costs.py``."""

import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
MEASURED = DOCS.parent / "tests/benchmarks/results/predict.json"
PAGE = DOCS / "results/costs.md"

NUMBERS = (6, 9, 12)
"""Powers of ten of the numbers of frames."""

CORES = 1000
"""Cores of the cluster that the last table is of."""


def main():
    PAGE.write_text(page(json.loads(MEASURED.read_text(encoding="utf-8"))), encoding="utf-8")


def page(measured: dict[str, Any]) -> str:
    """The whole page."""
    rate, size = measured["frames_per_cpu_second"], measured["bytes_per_frame"]
    head = f"""# What frames cost

A million, a billion, a trillion frames of {measured["atoms"]} atoms through `predict`, with the shipped model
`{measured["model"]}`. `docs/make_costs.py` makes this page of what `tests/benchmarks/bench_predict.py` has measured on
{measured["frames"]:,} frames; for your own machine:

```bash
BENCH_RESULTS=tests/benchmarks/results OMP_NUM_THREADS=1 pytest tests/benchmarks/bench_predict.py
python docs/make_costs.py
```

## Measured

{measured["hardware"]}; {measured["versions"]}. Processor time, all threads together.
"""
    between = """## Estimated

The figures above times the number of frames: nothing of this size was run. Time grows a little more than in proportion
to the atoms of a frame, space in proportion.
"""
    parts = [head, measured_rates(rate), measured_sizes(size), between, estimates(rate, size), gpus(rate)]
    return "\n".join([*parts, bottlenecks(rate, size)])


def measured_rates(rate: dict[str, float]) -> str:
    """Table of frames per second."""
    names = {
        "store": "reading: frame store",
        "text": "reading: extended XYZ, as ASE writes it",
        "ase": "reading: extended XYZ by ASE's own reader, for comparison",
        "scan": "looking a text through for its pieces (`--engine ray`)",
        "model": "computing: the model alone, from arrays",
        "from_store": "`predict` from a frame store: reading, checks, model, flags, output",
        "from_text": "`predict` from extended XYZ",
    }
    return table(("step", "frames per second and core"), [(text, f"{rate[name]:,}") for name, text in names.items()])


def measured_sizes(size: dict[str, float]) -> str:
    """Table of bytes per frame."""
    names = {
        "text": "extended XYZ",
        "store": "frame store, double precision",
        "store_single": "frame store, single precision (`convert --single`)",
        "csv": "predictions, CSV",
        "parquet": "predictions, Parquet",
    }
    return table(("file", "bytes per frame"), [(text, f"{size[name]:,.0f}") for name, text in names.items()])


def estimates(rate: dict[str, float], size: dict[str, float]) -> str:
    """Table for all numbers of frames."""
    return table(
        ("", *(f"10^{power} frames" for power in NUMBERS)),
        [
            ("**reading**, core hours: frame store", *times(rate["store"])),
            ("extended XYZ", *times(rate["text"])),
            ("extended XYZ by ASE", *times(rate["ase"])),
            ("**computing**, core hours: the model alone", *times(rate["model"])),
            ("**all of `predict`**, core hours: from a frame store", *times(rate["from_store"])),
            ("from extended XYZ", *times(rate["from_text"])),
            ("**storage**: extended XYZ", *spaces(size["text"])),
            ("frame store, double; single precision", *both(spaces(size["store"]), spaces(size["store_single"]))),
            ("predictions, CSV; Parquet", *both(spaces(size["csv"]), spaces(size["parquet"]))),
            ("**cores** to be done in an hour, from a frame store", *cores(rate["from_store"], 3600)),
            ("cores to be done in a day", *cores(rate["from_store"], 86400)),
            (f"**hours** on {CORES:,} cores", *times(rate["from_store"] * CORES)),
        ],
    )


def gpus(rate: dict[str, float]) -> str:
    """Estimate for GPUs."""
    return f"""**GPUs** have not been benchmarked. If the model computes G frames per second on a GPU (measured by
`bench_gpu.py`), n frames take n / (3600 G) GPU hours, and each GPU needs G / {rate["store"]:,} cores to read a frame
store, or G / {rate["text"]:,} to parse text. With the target of G = 2,000,000 they are {2e6 / rate["store"]:.0f} or
{2e6 / rate["text"]:.0f} cores per GPU, and {1e12 / 2e6 / 3600:,.0f} GPU hours for 10^12 frames.
"""


def bottlenecks(rate: dict[str, float], size: dict[str, float]) -> str:
    """What holds the work up, in the order in which it is met."""
    text = 1 / (1 / rate["text"] + 1 / rate["model"])
    disk = {
        name: f"{CORES * rate[of] * size[name] / 1e9:.1f} GB/s"
        for name, of in {"store": "from_store", "store_single": "from_store", "text": "from_text"}.items()
    }
    return f"""## The next bottleneck

- **On cores: the model.** From a frame store it takes {rate["from_store"] / rate["model"]:.0%} of the time; of parsing
  text and computing, {text / rate["model"]:.0%}. More cores help, up to what follows.
- **The shared disk.** {CORES:,} cores read {disk["store"]} from stores in double precision,
  {disk["store_single"]} from those in single, {disk["text"]} from text.
- **On GPUs: reading.** One core reads {rate["store"]:,} frames a second from a store; the check for close atoms and the
  flags of unusual frames come on top. A worker has one thread for all three.
- **One large text with `--engine ray`.** Before the work begins, one core looks it through:
  {1e9 / rate["scan"] / 60:,.0f} minutes for 10^9 frames in one file, while many files are shared out. A compressed
  text, or a file that ASE reads, is the work of one core from beginning to end.
- **The process that writes.** With Ray all predictions come to the process that was started:
  {CORES * rate["from_store"] * size["csv"] / 1e6:,.0f} MB/s of CSV from {CORES:,} cores. With some ten thousand
  take job arrays (`--shard`), which write a file each.
- **Storage.** 10^12 frames are {spaces(size["text"])[2]} as text and {spaces(size["store_single"])[2]} in a store of
  single precision: predict while the MD runs, and keep the candidates.
"""


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table with a blank line after it."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ("---",) * len(head), *rows))


def times(rate: float) -> list[str]:
    """Hours for all numbers of frames."""
    return [rounded(10**power / rate / 3600) for power in NUMBERS]


def cores(rate: float, seconds: float) -> list[str]:
    """Cores that do all numbers of frames in a time."""
    return [f"{-int(-(10**power) // (rate * seconds)):,}" for power in NUMBERS]


def spaces(size: float) -> list[str]:
    """Space for all numbers of frames."""
    return [space(10**power * size) for power in NUMBERS]


def space(size: float) -> str:
    """A number of bytes with a unit."""
    for unit in ("MB", "GB", "TB"):
        size /= 1e6 if unit == "MB" else 1e3
        if size < 1000:
            return f"{rounded(size)} {unit}"
    return f"{rounded(size / 1e3)} PB"


def both(first: list[str], second: list[str]) -> list[str]:
    """Two values in each place."""
    return [f"{a}; {b}" for a, b in zip(first, second, strict=True)]


def rounded(value: float) -> str:
    """Two figures, or all before the point."""
    if value < 0.001:
        return "below 0.001"
    return f"{value:.2g}" if value < 1 else f"{float(f'{value:.2g}'):,.10g}"


if __name__ == "__main__":
    main()
