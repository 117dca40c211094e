"""``pyg-clusters predict``."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from pyg_clusters.cli.options import add_frame_options
from pyg_clusters.cli.parsing import parse, verb_parser
from pyg_clusters.cli.runs import predictor_of
from pyg_clusters.cli.uncertainty import Uncertainty, add_coverage_option, calibration_for
from pyg_clusters.errors import InputError
from pyg_clusters.frames import BadFrame, check_output, write_extxyz, write_table
from pyg_clusters.inference.scoring import ScoredBlock, score_files

SUFFIXES = (".csv", ".parquet", ".extxyz")


def run(argv: Sequence[str]):
    """Writes the predicted energy of every frame."""
    parser = verb_parser(
        "predict",
        "Energies of frames, as a table or added to what the frames hold already (.extxyz): file, frame number "
        "(from 0), number of atoms, pred_energy (eV), pred_energy_per_atom (eV); of an ensemble pred_energy_spread; "
        "with --coverage pred_energy_low and pred_energy_high (eV); flag says what of a frame the training had not.",
        "pyg-clusters predict runs/dart md.extxyz --out predictions.csv",
    )
    add_frame_options(parser)
    add_coverage_option(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the file that is there")
    parser.add_argument("--out", type=Path, required=True, help="predictions.csv, .parquet or .extxyz")
    options = parse(parser, argv)
    if options.out.suffix not in SUFFIXES:
        raise InputError(f"{options.out}: cannot write {options.out.suffix!r}; use one of {', '.join(SUFFIXES)}")
    check_output(options.out, options.frames, options.overwrite)

    calibration = calibration_for(options.model, options.coverage)
    predictor = predictor_of(options.model, options.device, calibration if options.coverage else None)
    uncertainty = Uncertainty.of(predictor, calibration, options.coverage)
    blocks = score_files(
        predictor,
        options.frames,
        with_atoms=options.out.suffix == ".extxyz",
        on_bad=options.on_bad,
        ignore_cell=options.ignore_cell,
    )
    bad: list[BadFrame] = []
    shown = with_progress(blocks, bad)
    write = _write_frames if options.out.suffix == ".extxyz" else _write_table
    number = write(options.out, shown, uncertainty)
    list_bad(bad)
    print(f"{number} frames in {options.out}")


def with_progress(blocks: Iterable[ScoredBlock], bad: list[BadFrame]) -> Iterator[ScoredBlock]:
    """Passes blocks on, counts their frames on standard error if that is a terminal, and collects bad frames."""
    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} frames"), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("frames", total=None)
        for block in blocks:
            bad += block.bad
            progress.advance(task, len(block.frames))
            yield block


def list_bad(bad: Sequence[BadFrame]):
    """Lists the frames that were left out on standard error."""
    if bad:
        print(f"{len(bad)} frames were left out:", *(f"  {frame}" for frame in bad), sep="\n", file=sys.stderr)


def _write_table(path: Path, blocks: Iterable[ScoredBlock], uncertainty: Uncertainty) -> int:
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("file", "frame", "size", "pred_energy")}
    for block in blocks:
        columns["file"].append(np.full(len(block.frames), block.frames.file))
        columns["frame"].append(block.frames.number)
        columns["size"].append(block.frames.sizes)
        columns["pred_energy"].append(block.energy)
        for name, values in uncertainty.columns(block.frames, block.energy, block.spread).items():
            columns.setdefault(name, []).append(values)
    table = {name: np.concatenate(parts) for name, parts in columns.items()}
    more = {name: table.pop(name) for name in list(table)[4:]}
    table["pred_energy_per_atom"] = table["pred_energy"] / table["size"]
    write_table(path, table | more)
    return len(table["size"])


def _write_frames(path: Path, blocks: Iterable[ScoredBlock], uncertainty: Uncertainty) -> int:
    number = 0

    def frames() -> Iterator[Atoms]:
        nonlocal number
        for block in blocks:
            frames = block.frames
            more = uncertainty.columns(frames, block.energy, block.spread)
            for place, (atoms, energy) in enumerate(zip(frames.atoms or (), block.energy, strict=True)):
                atoms.info |= {"pred_energy": float(energy), "file": frames.file, "frame": int(frames.number[place])}
                atoms.info |= {name: values[place].item() for name, values in more.items()}
                yield atoms
                number += 1

    write_extxyz(path, frames())
    return number
