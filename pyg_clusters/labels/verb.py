"""What the verbs of ``label`` share."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ase import Atoms
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pyg_clusters.errors import InputError
from pyg_clusters.frames import AtomsFrame, BadFrame, read_atoms
from pyg_clusters.frames.checks import list_bad
from pyg_clusters.frames.outputs import open_output
from pyg_clusters.frames.provenance import set_origin
from pyg_clusters.labels import LabelFiles, LabelResult, frame_keys, label_frames
from pyg_clusters.options.common import add_check_options


class Labeller(Protocol):
    """Gives frames labels."""

    def problem(self, atoms: Atoms) -> str | None:
        """Why a frame cannot be labelled, if so."""

    def __call__(self, atoms: Atoms) -> LabelResult:
        """The frame with its labels."""


def add_label_options(parser: ArgumentParser):
    """Adds the frames, what to do with bad ones, the processes, and where to write."""
    parser.add_argument("frames", type=str, nargs="+", help="files of frames: whatever ASE reads, .xz and .gz too")
    add_check_options(parser)
    parser.add_argument("--workers", type=int, default=1, help="processes, each with a frame of its own")
    parser.add_argument("--threads", type=int, default=1, help="threads of each; more workers use processors better")
    parser.add_argument("--overwrite", action="store_true", help="begin anew, whatever is in the file")
    parser.add_argument("--out", type=Path, required=True, help="labelled.extxyz, which grows")


def label_files(labeller: Labeller, settings: Mapping[str, object], options: Namespace):
    """Labels the frames of files that are not labelled yet, and says what came of them.

    Args:
        labeller: Makes the labels.
        settings: What labels depend on.
        options: Those of :func:`add_label_options`.
    """
    for name in ("workers", "threads"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} must be at least 1, got {getattr(options, name)}")
    with open_output(options.out, ("label",), inputs=options.frames, overwrite=True):
        label_waiting(labeller, settings, options)


def label_waiting(labeller: Labeller, settings: Mapping[str, object], options: Namespace):
    """Label the frames that are not labelled yet, as :func:`label_files` does when it has locked the output."""
    bad: list[BadFrame] = []
    frames = _read(labeller, bad, options)
    keys = list(frame_keys(frame.atoms for frame in frames))
    files = LabelFiles(options.out, settings, overwrite=options.overwrite)
    waiting = [(key, frame) for key, frame in zip(keys, frames, strict=True) if key not in files.done]
    if len(waiting) < len(frames):
        print(f"{len(frames) - len(waiting)} of {len(frames)} frames are done: going on", file=sys.stderr)
    with _Progress(len(frames), len(frames) - len(waiting)) as progress:
        for place, labelled, seconds in label_frames(
            [frame.atoms for _, frame in waiting], labeller, workers=options.workers, threads=options.threads
        ):
            key, frame = waiting[place]
            files.add(key, labelled, seconds, source_file=frame.file, source_frame=frame.number)
            progress.done(frame, labelled, seconds)
    old = files.sort(keys)
    list_bad(bad)
    _summarise(keys, files)
    if old:
        print(f"{old} labelled frames are not in the input any more: they are in {files.old}")


def _read(labeller: Labeller, bad: list[BadFrame], options: Namespace) -> list[AtomsFrame]:
    """All good frames: a bad one is told before hours of work, not after."""
    frames: list[AtomsFrame] = []
    for frame in read_atoms(
        options.frames, problem=labeller.problem, on_bad=options.on_bad, fragments=options.fragments
    ):
        if isinstance(frame, AtomsFrame):
            set_origin(frame.atoms.info, frame.file, frame.number)
            frames.append(frame)
        else:
            bad.append(frame)
    return frames


def _summarise(keys: Sequence[str], files: LabelFiles):
    reasons = [reason for key in keys if (reason := files.done[key]) is not None]
    if files.path.exists():
        print(f"{len(keys) - len(reasons)} frames in {files.path}, {len(reasons)} set aside", end="")
    else:
        print(f"no frame is left for {files.path}, which is not written; {len(reasons)} set aside", end="")
    print(f" in {files.aside}, each with the reason" if reasons else "")


class _Progress:
    """A bar in a terminal, a line for each frame elsewhere, on standard error."""

    def __init__(self, count: int, done: int):
        console = Console(stderr=True)
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        self.count, self.number, self.terminal = count, done, console.is_terminal
        self.bar = Progress(*columns, console=console, disable=not self.terminal, transient=True)
        self.task = self.bar.add_task("", total=count, completed=done)

    def __enter__(self) -> "_Progress":
        self.bar.start()
        return self

    def __exit__(self, *_):
        self.bar.stop()

    def done(self, frame: AtomsFrame, labelled: LabelResult, seconds: float):
        self.number += 1
        text = f"{frame.atoms.get_chemical_formula()} {labelled.note}, {seconds:.1f} s"
        text += f"; set aside: {labelled.reason}" if labelled.reason else ""
        self.bar.update(self.task, completed=self.number, description=text)
        if not self.terminal:
            print(f"{self.number}/{self.count} {text}", file=sys.stderr, flush=True)
