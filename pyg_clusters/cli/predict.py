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
from pyg_clusters.errors import InputError
from pyg_clusters.frames import BadFrame, check_output, write_extxyz, write_table
from pyg_clusters.inference.scoring import ScoredBlock, score_files

SUFFIXES = (".csv", ".parquet", ".extxyz")


def run(argv: Sequence[str]):
    """Writes the predicted energy of every frame, or the shielding of every atom."""
    parser = verb_parser(
        "predict",
        "Energies of frames, as a table or added to what the frames hold already (.extxyz): file, frame number "
        "(from 0), number of atoms, pred_energy (eV), pred_energy_per_atom (eV). A model of shieldings gives "
        "pred_nmr_shielding (ppm): a row per atom, with its number in the frame (from 0), or an array.",
        "pyg-clusters predict runs/dart md.extxyz --out predictions.csv",
    )
    add_frame_options(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the file that is there")
    parser.add_argument("--out", type=Path, required=True, help="predictions.csv, .parquet or .extxyz")
    options = parse(parser, argv)
    if options.out.suffix not in SUFFIXES:
        raise InputError(f"{options.out}: cannot write {options.out.suffix!r}; use one of {', '.join(SUFFIXES)}")
    check_output(options.out, options.frames, options.overwrite)

    blocks = score_files(
        predictor_of(options.model, options.device),
        options.frames,
        with_atoms=options.out.suffix == ".extxyz",
        on_bad=options.on_bad,
        ignore_cell=options.ignore_cell,
    )
    bad: list[BadFrame] = []
    shown = with_progress(blocks, bad)
    number = _write_frames(options.out, shown) if options.out.suffix == ".extxyz" else _write_table(options.out, shown)
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


def _write_table(path: Path, blocks: Iterable[ScoredBlock]) -> int:
    columns: dict[str, list[np.ndarray]] = {}
    number = 0
    for block in blocks:
        number += len(block.frames)
        rows = _rows_of_atoms(block) if block.prediction.per_atom else _rows_of_frames(block)
        if len(block.frames) or not columns:
            for name, values in rows.items():
                columns.setdefault(name, []).append(values)
    write_table(path, {name: np.concatenate(parts) for name, parts in columns.items()})
    return number


def _rows_of_frames(block: ScoredBlock) -> dict[str, np.ndarray]:
    frames, energy = block.frames, block.energy
    return {
        "file": np.full(len(frames), frames.file),
        "frame": frames.number,
        "size": frames.sizes,
        "pred_energy": energy,
        "pred_energy_per_atom": energy / frames.sizes,
    }


def _rows_of_atoms(block: ScoredBlock) -> dict[str, np.ndarray]:
    frames, frame_of_atom = block.frames, block.frames.frame_of_atom
    return {
        "file": np.full(len(frame_of_atom), frames.file),
        "frame": frames.number[frame_of_atom],
        "size": frames.sizes[frame_of_atom],
        "atom": np.arange(len(frame_of_atom)) - frames.ptr[frame_of_atom],
        "pred_nmr_shielding": block.shielding,
    }


def _write_frames(path: Path, blocks: Iterable[ScoredBlock]) -> int:
    number = 0

    def frames() -> Iterator[Atoms]:
        nonlocal number
        for block in blocks:
            frames = block.frames
            for place, atoms in enumerate(frames.atoms or ()):
                atoms.info |= {"file": frames.file, "frame": int(frames.number[place])}
                if block.prediction.per_atom:
                    atoms.arrays["pred_nmr_shielding"] = block.shielding[frames.ptr[place] : frames.ptr[place + 1]]
                else:
                    atoms.info["pred_energy"] = float(block.energy[place])
                yield atoms
                number += 1

    write_extxyz(path, frames())
    return number
