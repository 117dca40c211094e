"""Labels for the frames of files."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ase import Atoms

from pyg_clusters.frames import BadFrame, good_frames, read_atoms
from pyg_clusters.frames.writing import open_output
from pyg_clusters.labels import (
    EnergyLabeller,
    LabelFiles,
    LabelResult,
    ShieldingLabeller,
    ShieldingLevel,
    StabilityLabeller,
    frame_keys,
    label_frames,
)
from pyg_clusters.labels.dft.level import FREE, GB, free_memory
from pyg_clusters.options.label import LabelEnergyOptions, LabelOptions, LabelPrescreenOptions, LabelShieldingOptions
from pyg_clusters.progress import ItemProgress
from pyg_clusters.structures.calculators import calculator_identity, named_calculator


class Labeller(Protocol):
    """Labels one frame at a time."""

    def problem(self, atoms: Atoms) -> str | None:
        """Reason why a frame cannot be labelled, if any."""

    def __call__(self, atoms: Atoms) -> LabelResult:
        """The frame with its labels."""


@dataclass
class Labelled:
    """Result of labelling files.

    Attributes:
        frames: Number of labelled frames.
        rejected: Number of rejected frames.
        files: The files.
        removed: Number of labelled frames that are no longer in the input.
        bad: Frames that were skipped.
    """

    frames: int
    rejected: int
    files: LabelFiles
    removed: int
    bad: list[BadFrame]


def label_energy(options: LabelEnergyOptions) -> Labelled:
    """Compute energies and forces of frames.

    Raises:
        InputError: If the calculator or a frame cannot be used, or the file belongs to another run.
    """
    if options.calculator != "gupta":
        named_calculator(options.calculator, ())  # reports a wrong name before frames are read
    return _label(EnergyLabeller(options.calculator), {"calculator": calculator_identity(options.calculator)}, options)


def label_prescreen(options: LabelPrescreenOptions) -> Labelled:
    """Select the sodium clusters whose closed shell is probably stable.

    Raises:
        InputError: If a frame cannot be used, or the file belongs to another run.
    """
    settings = {name: getattr(options, name) for name in ("min_gap", "least", "charge")}
    memory = FREE * free_memory() / options.workers
    return _label(StabilityLabeller(**settings, memory=memory), settings, options)


def label_shielding(options: LabelShieldingOptions) -> Labelled:
    """Compute the shielding of every atom.

    Raises:
        InputError: If a frame cannot be used, or the file belongs to another run.
    """
    exact = options.exact or options.device == "cuda"
    labeller = ShieldingLabeller(
        ShieldingLevel(
            fitting=None if exact else ShieldingLevel().fitting,
            grid=options.grid,
            scf_tolerance=options.scf_tolerance,
            response_tolerance=options.response_tolerance,
        ),
        charge=options.charge,
        max_s2=options.max_s2,
        spin_test=options.spin_test,
        label_unstable=options.label_unstable,
        memory=(FREE * free_memory() if options.memory is None else GB * options.memory) / options.workers,
        device=options.device,
    )
    names = ("charge", "max_s2", "spin_test", "label_unstable", "grid", "scf_tolerance", "response_tolerance")
    return _label(labeller, {**{name: getattr(options, name) for name in names}, "exact": exact}, options)


def _label(labeller: Labeller, settings: Mapping[str, object], options: LabelOptions) -> Labelled:
    """Label the frames that are not labelled yet.

    Args:
        labeller: Makes the labels.
        settings: Settings that the labels depend on.
        options: Options of the verb.
    """
    out = Path(options.out)
    with open_output(out, ("label",), inputs=options.frames, overwrite=True):
        bad: list[BadFrame] = []
        read = read_atoms(options.frames, problem=labeller.problem, on_bad=options.on_bad, fragments=options.fragments)
        frames = list(good_frames(read, bad))  # bad frames are reported before hours of work, not after
        keys = list(frame_keys(frame.atoms for frame in frames))
        files = LabelFiles(out, settings, overwrite=options.overwrite)
        waiting = [(key, frame) for key, frame in zip(keys, frames, strict=True) if key not in files.done]
        done = len(frames) - len(waiting)
        if done:
            print(f"{done} of {len(frames)} frames are done: resuming", file=sys.stderr)
        with ItemProgress(len(frames), done) as progress:
            for index, result, seconds in label_frames(
                [frame.atoms for _, frame in waiting], labeller, workers=options.workers, threads=options.threads
            ):
                key, frame = waiting[index]
                files.add(key, result, seconds, source_file=frame.file, source_frame=frame.number)
                text = f"{frame.atoms.get_chemical_formula()} {result.note}, {seconds:.1f} s"
                progress.advance(text + (f"; rejected: {result.reason}" if result.reason else ""))
        removed = files.sort(keys)
    rejected = sum(files.done[key] is not None for key in keys)
    return Labelled(len(keys) - rejected, rejected, files, removed, bad)
