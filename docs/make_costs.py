"""Write ``costs.md`` from the measurements of ``tests/benchmarks/bench_predict.py``: ``python docs/make_costs.py``."""

import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
MEASURED = DOCS.parent / "tests/benchmarks/results/predict.json"
PAGE = DOCS / "results/costs.md"

NUMBERS = (6, 9, 12)
"""Numbers of frames, as powers of ten."""

CORES = 1000
"""Cores of the cluster in the last table."""


def main():
    PAGE.write_text(page(json.loads(MEASURED.read_text(encoding="utf-8"))), encoding="utf-8")


def page(measured: dict[str, Any]) -> str:
    """Complete page."""
    rate, size = measured["frames_per_cpu_second"], measured["bytes_per_frame"]
    head = f"""# Computational cost

Cost of predictions for 10^6, 10^9 and 10^12 frames of {measured["atoms"]} atoms with `predict` and the model
`{measured["model"]}`, estimated from measurements on {measured["frames"]:,} frames. To generate this page for your own
machine:

```bash
BENCH_RESULTS=tests/benchmarks/results OMP_NUM_THREADS=1 pytest tests/benchmarks/bench_predict.py
python docs/make_costs.py
```

## Measured

{measured["hardware"]}; {measured["versions"]}. Rates are per second of processor time, summed over all threads.
"""
    between = """## Estimated

The values above, multiplied by the number of frames; nothing of this size was run. Storage is proportional to the
number of atoms in a frame, and time grows slightly faster.
"""
    parts = [head, measured_rates(rate), measured_sizes(size), between, estimates(rate, size), gpus(rate)]
    return "\n".join([*parts, bottlenecks(rate, size)])


def measured_rates(rate: dict[str, float]) -> str:
    """Table of frames per second."""
    names = {
        "store": "reading: frame store",
        "text": "reading: extended XYZ, as ASE writes it",
        "ase": "reading: extended XYZ with ASE, for comparison",
        "scan": "scanning text for the offsets of its pieces (`--engine ray`)",
        "model": "computing: only the model, from arrays",
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
    """Table of the estimates for each number of frames."""
    return table(
        ("", *(f"10^{power} frames" for power in NUMBERS)),
        [
            ("**reading**, core hours: frame store", *times(rate["store"])),
            ("extended XYZ", *times(rate["text"])),
            ("extended XYZ with ASE", *times(rate["ase"])),
            ("**computing**, core hours: only the model", *times(rate["model"])),
            ("**complete `predict`**, core hours: from a frame store", *times(rate["from_store"])),
            ("from extended XYZ", *times(rate["from_text"])),
            ("**storage**: extended XYZ", *spaces(size["text"])),
            (
                "frame store, double precision; single precision",
                *both(spaces(size["store"]), spaces(size["store_single"])),
            ),
            ("predictions, CSV; Parquet", *both(spaces(size["csv"]), spaces(size["parquet"]))),
            ("**cores** needed to finish in an hour, from a frame store", *cores(rate["from_store"], 3600)),
            ("cores needed to finish in a day", *cores(rate["from_store"], 86400)),
            (f"**hours** on {CORES:,} cores", *times(rate["from_store"] * CORES)),
        ],
    )


def gpus(rate: dict[str, float]) -> str:
    """Estimate for GPUs."""
    return f"""**GPUs** have not been benchmarked. If a GPU computes G frames per second (`bench_gpu.py`), n frames take
n / (3600 G) GPU hours. Each GPU then needs G / {rate["store"]:,} cores to read a frame store, or
G / {rate["text"]:,} cores to parse text. At G = 2,000,000 these are {2e6 / rate["store"]:.0f} or
{2e6 / rate["text"]:.0f} cores per GPU, and {1e12 / 2e6 / 3600:,.0f} GPU hours for 10^12 frames.
"""


def bottlenecks(rate: dict[str, float], size: dict[str, float]) -> str:
    """Bottlenecks, in the order in which they occur."""
    text = 1 / (1 / rate["text"] + 1 / rate["model"])
    disk = {
        name: f"{CORES * rate[of] * size[name] / 1e9:.1f} GB/s"
        for name, of in {"store": "from_store", "store_single": "from_store", "text": "from_text"}.items()
    }
    return f"""## Bottlenecks

- **The model, on cores.** It takes {rate["from_store"] / rate["model"]:.0%} of the time from a frame store, and
  {text / rate["model"]:.0%} of the time for parsing and computing from text. More cores help, up to these limits.
- **The shared disk.** {CORES:,} cores read {disk["store"]} from stores in double precision, {disk["store_single"]}
  from stores in single precision, and {disk["text"]} from text.
- **Reading, on GPUs.** One core reads {rate["store"]:,} frames per second from a store, and also checks the frames and
  computes the flags.
- **A single large text file with `--engine ray`.** One core first scans the file: {1e9 / rate["scan"] / 60:,.0f} min
  for 10^9 frames. Several files are scanned in parallel. Compressed text, or files that ASE reads, take one core.
- **Writing.** With Ray, one process writes all predictions:
  {CORES * rate["from_store"] * size["csv"] / 1e6:,.0f} MB/s of CSV from {CORES:,} cores. For ten thousand cores use job
  arrays (`--shard`), each of which writes its own file.
- **Storage.** 10^12 frames take {spaces(size["text"])[2]} as text and {spaces(size["store_single"])[2]} as a store in
  single precision. Predict while the MD runs, and keep only the candidates.
"""


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Markdown table, with the newline of its last row."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ("---",) * len(head), *rows))


def times(rate: float) -> list[str]:
    """Hours for each number of frames."""
    return [rounded(10**power / rate / 3600) for power in NUMBERS]


def cores(rate: float, seconds: float) -> list[str]:
    """Cores that compute each number of frames within ``seconds``."""
    return [f"{-int(-(10**power) // (rate * seconds)):,}" for power in NUMBERS]


def spaces(size: float) -> list[str]:
    """Storage for each number of frames."""
    return [space(10**power * size) for power in NUMBERS]


def space(size: float) -> str:
    """Number of bytes with a unit."""
    for unit in ("MB", "GB", "TB"):
        size /= 1e6 if unit == "MB" else 1e3
        if size < 1000:
            return f"{rounded(size)} {unit}"
    return f"{rounded(size / 1e3)} PB"


def both(first: list[str], second: list[str]) -> list[str]:
    """Pairs of values."""
    return [f"{a}; {b}" for a, b in zip(first, second, strict=True)]


def rounded(value: float) -> str:
    """Two digits, or all before the decimal point."""
    if value < 0.001:
        return "below 0.001"
    return f"{value:.2g}" if value < 1 else f"{float(f'{value:.2g}'):,.10g}"


if __name__ == "__main__":
    main()
