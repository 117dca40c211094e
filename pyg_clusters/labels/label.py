"""Labelling of the frames of files."""

import hashlib
import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from io import StringIO
from pathlib import Path

from ase import Atoms
from ase.io.extxyz import key_val_str_to_dict

from pyg_clusters.errors import InputError
from pyg_clusters.files import remove_stale, write_text
from pyg_clusters.frames import BadFrame, FrameLog, Shard, good_frames, read_atoms
from pyg_clusters.frames.electronic_state import INITIAL_ARRAYS, STATE_NAMES
from pyg_clusters.frames.provenance import SOURCE_FILE, SOURCE_FRAME, origin_in
from pyg_clusters.frames.writing import open_output
from pyg_clusters.labels.dft.level import FREE, GB, ShieldingLevel, free_memory
from pyg_clusters.labels.labellers import EnergyLabeller, Labeller, LabelResult, label_frames, label_on_ray
from pyg_clusters.labels.shielding import ShieldingLabeller, StabilityLabeller
from pyg_clusters.options.structures import (
    LabelEnergyOptions,
    LabelOptions,
    LabelPrescreenOptions,
    LabelShieldingOptions,
)
from pyg_clusters.structures.calculators import calculator_identity, check_calculator
from pyg_clusters.terminal import ItemProgress, count_of

KEY = "label_key"
"""Key in ``info`` of the unique name of a frame."""

DECIMALS = 6


def frame_keys(frames: Iterable[Atoms]) -> Iterator[str]:
    """Yield a unique name for each frame, from its elements, positions (to 1e-6 Å), charge and spin.

    The name does not depend on the file or on the index of the frame. Repeated structures are numbered.

    Example:
        >>> dimers = [Atoms("Na2", [[0, 0, 0], [0, 0, 3.1]]), Atoms("Na2", [[0, 0, 0], [0, 0, 3.1]])]
        >>> list(frame_keys(dimers))
        ['Na2-ae3301d87d04', 'Na2-ae3301d87d04-2']
    """
    seen: Counter[str] = Counter()
    for atoms in frames:
        positions = atoms.positions.round(DECIMALS) + 0.0  # no negative zeros
        stated = [f"{name}={value}" for name, value in sorted(atoms.info.items()) if name.lower() in STATE_NAMES]
        stated += [f"{name}={atoms.arrays[name].tolist()}" for name in INITIAL_ARRAYS if name in atoms.arrays]
        text = f"{atoms.numbers.tolist()} {positions.tolist()} {' '.join(stated)}"
        name = f"{atoms.get_chemical_formula()}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name}-{seen[name]}"


REASON = "set_aside"
"""Key in ``info`` of the reason why a frame was rejected."""


class LabelFiles:
    """Output files of a labelling job.

    Labelled frames are written to ``NAME.extxyz``, rejected frames to ``NAME.set_aside.extxyz`` and the log to
    ``NAME.log.jsonl``. Frames that are no longer in the input are moved to ``NAME.old.extxyz``, and moved back if they
    reappear.

    A frame is written as soon as it is added. When the files are opened again with the same settings, :attr:`done`
    contains the frames in them, and a frame that was truncated by a kill is removed.

    Args:
        path: File of labelled frames, ``.extxyz`` or ``.xyz``.
        settings: Settings that determine the labels, as JSON types.
        overwrite: Whether to replace existing files.

    Raises:
        InputError: If existing files were written with other settings, or files cannot be read or written.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, object], *, overwrite: bool = False):
        self.path = Path(path)
        self.aside = self.path.with_name(f"{self.path.stem}.set_aside{self.path.suffix}")
        self.old = self.path.with_name(f"{self.path.stem}.old{self.path.suffix}")
        self.log = self.path.with_name(f"{self.path.stem}.log.jsonl")
        self.settings = dict(settings)
        self._logs: dict[Path, FrameLog] = {}
        self.done: dict[str, str | None] = {}
        """Reason for the rejection of each written frame by name; ``None`` for labelled frames."""
        if overwrite:
            for file in (self.aside, self.old, self.log):
                file.unlink(missing_ok=True)
        self._open(self.path, overwrite)
        for file in (self.aside, self.old):
            if file.exists():
                self._open(file)
        for log in self._logs.values():
            for number, atoms in enumerate(log.frames):
                if KEY not in atoms.info:
                    raise InputError(f"{log.path}, frame {number}: has no {KEY}; choose another file or --overwrite")
                self.done[atoms.info[KEY]] = atoms.info.get(REASON)
            log.frames = []
        remove_stale(self.log)
        if self.log.exists():
            self._recover_log()

    def add(self, key: str, labelled: LabelResult, seconds: float, **where: object):
        """Write a frame and a line of the log.

        Args:
            key: Name of the frame.
            labelled: The labelled or rejected frame.
            seconds: Time of the calculation in seconds.
            where: Further values of the line, such as the file of the frame.
        """
        atoms = labelled.atoms
        atoms.info[KEY] = key
        path = self.path
        if labelled.reason is not None:
            atoms.info[REASON] = labelled.reason
            path = self.aside
        line = {"time": datetime.now().isoformat(timespec="seconds"), "key": key, **where}
        line |= {"seconds": round(seconds, 2), "note": labelled.note, REASON: labelled.reason}
        frames = self._open(path)
        try:
            with self.log.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            raise InputError(f"cannot write {self.log}: {error.strerror}; make room there and restart") from error
        frames.append(atoms)  # after its log line, because lines without a frame are removed on restart
        self.done[key] = labelled.reason

    def sort(self, keys: Iterable[str]) -> int:
        """Sort the frames in input order, and move frames that are not in the input to ``NAME.old.extxyz``.

        Args:
            keys: Names of the frames of the input.

        Returns:
            Number of frames that are not in the input.
        """
        position = {key: number for number, key in enumerate(keys)}
        before = {path: path.read_text(encoding="utf-8") if path.exists() else "" for path in self._files}
        frames = {key: text for path in before for key, text in _frames_as_text(before[path])}
        after: dict[Path, list[str]] = {path: [] for path in self._files}
        for key in sorted(frames, key=lambda key: position.get(key, -1)):
            new = self.path if self.done[key] is None else self.aside
            after[new if key in position else self.old].append(frames[key])
        for path, texts in after.items():  # the file of old frames first: no frame is lost if the job is killed
            text = "".join(texts)
            if not text:
                path.unlink(missing_ok=True)
            elif text != before[path]:
                self._open(path)
                write_text(path, text)
        return len(after[self.old])

    @property
    def _files(self) -> tuple[Path, ...]:
        return self.old, self.aside, self.path

    def _recover_log(self):
        """Remove log lines of missing frames, and a truncated last line."""
        with self.log.open(encoding="utf-8", errors="replace", newline="\n") as stream:
            lines = list(stream)
        whole = [line for line in lines if line.endswith("\n") and _key_of(line) in self.done]
        if whole != lines:
            write_text(self.log, "".join(whole))

    def _open(self, path: Path, overwrite: bool = False) -> FrameLog:
        if path not in self._logs:
            self._logs[path] = FrameLog(path, self.settings, overwrite=overwrite)
        return self._logs[path]


def _key_of(line: str) -> str | None:
    """Name of the frame of a log line; ``None`` if the line is incomplete."""
    try:
        return json.loads(line)["key"]
    except (ValueError, TypeError, KeyError):
        return None


def _frames_as_text(text: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each frame."""
    lines = list(StringIO(text, newline="\n"))
    start = 0
    while start < len(lines):
        end = start + 2 + int(lines[start])
        yield str(key_val_str_to_dict(lines[start + 1])[KEY]), "".join(lines[start:end])
        start = end


@dataclass
class Labelled:
    """Result of labelling files."""

    frames: int  #: Number of labelled frames.
    rejected: int  #: Number of rejected frames.
    files: LabelFiles  #: Output files.
    removed: int  #: Number of labelled frames that are no longer in the input.
    bad: list[BadFrame]  #: Skipped frames.

    def __str__(self) -> str:
        files = self.files
        if files.path.exists():
            text = f"{count_of(self.frames, 'frame')} in {files.path}, {self.rejected} rejected"
        else:
            text = f"no frame was labelled, so {files.path} is not written; {self.rejected} rejected"
        text += f" in {files.aside}, each with the reason" if self.rejected else ""
        if self.removed:
            text += f"\n{self.removed} labelled frames are no longer in the input: they are in {files.old}"
        return text


def label_energy(options: LabelEnergyOptions) -> Labelled:
    """Compute energies and forces of frames.

    Raises:
        InputError: If the calculator or a frame cannot be used, or the file belongs to another run.
    """
    check_calculator(options.calculator)
    return _label(EnergyLabeller(options.calculator), {"calculator": calculator_identity(options.calculator)}, options)


def label_prescreen(options: LabelPrescreenOptions) -> Labelled:
    """Select sodium clusters whose closed-shell singlet is probably stable.

    Raises:
        InputError: If a frame cannot be used, or the file belongs to another run.
    """
    settings = {name: getattr(options, name) for name in ("min_gap", "least", "charge")}
    return _label(StabilityLabeller(**settings, memory=_memory_of_worker(options)), settings, options)


def label_shielding(options: LabelShieldingOptions) -> Labelled:
    """Compute the NMR shielding of every atom.

    Raises:
        InputError: If a frame cannot be used, or the file belongs to another run.
    """
    exact = options.exact or options.device == "cuda"
    numerical = {name: getattr(options, name) for name in ("grid", "scf_tolerance", "response_tolerance")}
    spin = {name: getattr(options, name) for name in ("charge", "max_s2", "spin_test", "label_unstable")}
    level = ShieldingLevel(fitting=None if exact else ShieldingLevel().fitting, **numerical)
    memory = _memory_of_worker(options, options.memory)
    labeller = ShieldingLabeller(level, **spin, memory=memory, device=options.device)
    return _label(labeller, {**spin, **numerical, "exact": exact}, options)


def _memory_of_worker(options: LabelOptions, memory: float | None = None) -> float:
    """Memory limit of each worker in bytes; unlimited on Ray, where each frame reserves what it needs."""
    if options.engine == "ray":
        return math.inf
    return (FREE * free_memory() if memory is None else GB * memory) / options.workers


def _label(labeller: Labeller, settings: Mapping[str, object], options: LabelOptions) -> Labelled:
    """Label the frames that are not labelled yet."""
    out = Path(options.out)
    with open_output(options, overwrite=True):
        bad: list[BadFrame] = []
        read = read_atoms(options.frames, problem=labeller.problem, on_bad=options.on_bad, fragments=options.fragments)
        frames = list(good_frames(read, bad))  # read all frames first, to report bad ones before hours of calculations
        keys = list(frame_keys(frame.atoms for frame in frames))
        if options.shard:
            shard = Shard.parse(options.shard)
            chosen = slice(shard.number - 1, None, shard.count)
            frames, keys = frames[chosen], keys[chosen]
        files = LabelFiles(out, settings, overwrite=options.overwrite)
        waiting = [(key, frame) for key, frame in zip(keys, frames, strict=True) if key not in files.done]
        done = len(frames) - len(waiting)
        if done:
            print(f"{done} of {len(frames)} frames are done: resuming", file=sys.stderr)
        with ItemProgress(len(frames), done) as progress:
            atoms = [frame.atoms for _, frame in waiting]
            for index, result, seconds in (
                label_on_ray(atoms, labeller, threads=options.threads, address=options.address)
                if options.engine == "ray"
                else label_frames(atoms, labeller, workers=options.workers, threads=options.threads)
            ):
                key, frame = waiting[index]
                origin = origin_in(frame.atoms.info) or (frame.file, frame.number)
                files.add(key, result, seconds, **dict(zip((SOURCE_FILE, SOURCE_FRAME), origin, strict=True)))
                text = f"{frame.atoms.get_chemical_formula()} {result.note}, {seconds:.1f} s"
                progress.advance(text + (f"; rejected: {result.reason}" if result.reason else ""))
        removed = files.sort(keys)
    rejected = sum(files.done[key] is not None for key in keys)
    return Labelled(len(keys) - rejected, rejected, files, removed, bad)
