"""NMR spectra of the frames of files."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyg_clusters.analysis.line_shapes import Shape, Spectrum, boltzmann_weights, broaden, overlap, shift_axis, shifts
from pyg_clusters.analysis.plots import BLUE, ORANGE, SMALL, save_figure, tidy
from pyg_clusters.errors import InputError
from pyg_clusters.files import write_json
from pyg_clusters.frames import BadFrame, FrameBlock, Frames, write_table
from pyg_clusters.frames.atoms import labels_of
from pyg_clusters.frames.checks import no_usable_frame
from pyg_clusters.frames.energy_units import units_of_labels
from pyg_clusters.frames.paths import check_named_once
from pyg_clusters.frames.writing import open_output
from pyg_clusters.inference.calibration import flagger_of
from pyg_clusters.inference.flags import text_of_flags
from pyg_clusters.inference.run import Run
from pyg_clusters.inference.scoring import ScoredBlock, score_frames
from pyg_clusters.metrics import SHIFTS, energy_problem, look_like_shifts
from pyg_clusters.options.frames import SpectrumOptions
from pyg_clusters.terminal import count_of, counting, print_table
from pyg_clusters.units import SHIFT_NAME, SODIUM_REFERENCE_PPM, sign_problem

RESULTS = ("spectrum.csv", "spectrum.json", "spectrum.png")
HEADINGS = ("equal weights", "Boltzmann-weighted")
COLORS: dict[str, str] = {"pred": BLUE, "dft": ORANGE}
NAMES: dict[str, str] = {"pred": "predicted", "dft": "DFT"}

SHOWN: float = 0.01  # shown range of shifts: where an intensity is above this fraction of the maximum of its panel


@dataclass
class Atomic:
    """Shieldings of the atoms of all frames."""

    sizes: np.ndarray  # number of atoms of each frame [num_frames]
    predicted: np.ndarray  # shieldings in ppm [num_atoms]
    labels: np.ndarray | None  # DFT shieldings in ppm [num_atoms], if every frame has them
    energy: np.ndarray | None  # energies in eV [num_frames], if every frame has one
    bad: list[BadFrame]  # frames that were skipped
    num_flagged: int  # number of frames outside the range of the training set


LABELS = {
    "num_clusters": "clusters",
    "pred_peak_ppm": "peak (ppm)",
    "dft_peak_ppm": "peak, DFT (ppm)",
    "overlap": "overlap",
    "effective_isomers": "effective isomers",
    "pred_boltzmann_peak_ppm": "peak, weighted (ppm)",
    "dft_boltzmann_peak_ppm": "peak, DFT, weighted (ppm)",
    "overlap_boltzmann": "overlap, weighted",
}
"""Labels of the rows of the printed table."""


@dataclass
class Group:
    """Spectra of the clusters of one size, or of all clusters."""

    name: str  # number of atoms of the clusters, or "all"
    clusters: int  # number of frames
    atoms: int  # number of atoms of all of them
    isomers: float | None  # effective number in equilibrium, 1 / (sum of the squares of their shares)
    spectra: dict[str, Spectrum]  # by name of the column in the table

    @property
    def row(self) -> dict[str, Any]:
        """Counts, peaks in ppm, overlaps with the DFT spectra and the effective number of isomers, where known."""
        size = int(self.name) if self.name.isdigit() else self.name
        row: dict[str, Any] = {"size": size, "num_clusters": self.clusters, "num_atoms": self.atoms}
        row |= {f"{name}_peak_ppm": lines.peak for name, lines in self.spectra.items()}
        for ending in ("", "_boltzmann"):
            if f"dft{ending}" in self.spectra:
                row[f"overlap{ending}"] = overlap(self.spectra[f"pred{ending}"], self.spectra[f"dft{ending}"])
        if self.isomers is not None:
            row["effective_isomers"] = self.isomers
        return row


@dataclass
class Spectra:
    """Result of :func:`spectrum`."""

    groups: list[Group]  # by cluster size, or of all clusters
    bad: list[BadFrame]  # frames that were skipped
    files: list[Path]  # files written

    def print(self):
        """Print peaks and overlaps in a table, and the names of the files."""
        rows = [group.row for group in self.groups]
        shown = {key: label for key, label in LABELS.items() if any(key in row for row in rows)}
        lines = [[label, *(row.get(key, "-") for row in rows)] for key, label in shown.items()]
        columns = [group.name if group.name == "all" else f"{group.name} atoms" for group in self.groups]
        print_table("Spectra: shifts in ppm", ["", *columns], lines)
        print(*(f"  {file}" for file in self.files), sep="\n")


def spectrum(options: SpectrumOptions) -> Spectra:
    """Predict the shieldings of frames and write their spectra.

    Raises:
        InputError: If no frame can be used, the frames are of several elements or lack a requested label, or the folder
            already holds results.
    """
    shift_axis([0.0], options.width, options.shape)  # checks the options before the frames are read
    boltzmann_weights([], options.temperature)
    out = Path(options.out)
    with open_output(options, results=RESULTS):
        check_named_once(options.frames)
        model = Run(options.model)
        for name, of in ((options.target, "--target"), (model.target, f"the target of {options.model}")):
            if name is not None and SHIFT_NAME.search(name):
                raise InputError(
                    f"{of} is {name!r}, a chemical shift by its name; give the shielding: that of the standard minus "
                    "the shift"
                )
        predictor = model.predictor(options.device)
        frames = Frames.open(options.frames, with_atoms=True, on_bad=options.on_bad, fragments=options.fragments)
        trained = flagger_of(predictor.model, model.calibration())
        scored = counting(score_frames(predictor, frames, trained=trained), lambda block: len(block.frames))
        units = units_of_labels(options.frames, options.energy or "energy")
        atomic = gather(scored, options.target, options.energy, options.reference is None, units, options.on_bad)
        if not atomic.predicted.size:
            raise no_usable_frame(options.frames, atomic.bad)
        if atomic.num_flagged:
            flagged = text_of_flags(atomic.num_flagged, len(atomic.sizes))
            warnings.warn(f"{flagged}: predict writes the reasons to pred_flag", stacklevel=2)
        if atomic.labels is not None and look_like_shifts(atomic.predicted, atomic.labels):
            warnings.warn(SHIFTS, stacklevel=2)
        if atomic.energy is not None:
            problem = energy_problem(atomic.energy, atomic.sizes, atomic.sizes)
            if problem := problem or sign_problem(options.energy or "energy", atomic.energy.min()):
                warnings.warn(f"Boltzmann weights are meaningless: {problem}", stacklevel=2)
        reference = SODIUM_REFERENCE_PPM if options.reference is None else options.reference
        groups = spectra(atomic, reference, options.width, options.shape, options.by, options.temperature)
        settings = {
            "model": options.model,
            "frames": options.frames,
            "reference_ppm": reference,
            "width_ppm": options.width,
            "shape": options.shape,
            "temperature_K": None if atomic.energy is None else options.temperature,
        }
        _write(groups, settings, out)
    return Spectra(groups, atomic.bad, [out / name for name in RESULTS])


def gather(
    blocks: Iterable[ScoredBlock],
    target: str | None,
    energy: str | None,
    sodium_only: bool,
    units: Mapping[str, float],
    on_bad: Literal["stop", "skip"] = "stop",
) -> Atomic:
    """Collect predictions and labels of all frames.

    By default the DFT shieldings are ``nmr_shielding`` and the energy is ``energy``, where frames have them. Frames
    with a label that is not finite are left out with ``on_bad="skip"``.

    Raises:
        InputError: If a requested label is missing or not a number, or the atoms are of several elements, or of a
            different element from the reference.
    """
    sizes: list[np.ndarray] = []
    predicted: list[np.ndarray] = []
    labels: list[np.ndarray | None] = []
    energies: list[np.ndarray | None] = []
    bad: list[BadFrame] = []
    num_flagged = 0
    elements: set[int] = set()
    for block in blocks:
        frames = block.frames
        elements.update(np.unique(frames.z).tolist())
        if len(elements) > 1:
            names = ", ".join(chemical_symbols[number] for number in sorted(elements))
            raise InputError(f"{frames.file}: a spectrum has one nucleus, but there are {names}; separate the frames")
        finite = np.ones(len(frames), dtype=bool)
        invalid: list[BadFrame] = []
        for index, atoms in enumerate(frames.atoms or ()):
            label = _numbers(frames, index, atoms, target or "nmr_shielding", len(atoms), target is not None)
            of_frame = _numbers(frames, index, atoms, energy or "energy", None, energy is not None)
            for key, values in ((target or "nmr_shielding", label), (energy or "energy", of_frame)):
                if values is not None and finite[index] and not np.isfinite(values).all():
                    finite[index] = False
                    reason = f"{key!r} is {values[~np.isfinite(values)].flat[0]}"
                    invalid.append(BadFrame(frames.file, int(frames.number[index]), reason))
            if finite[index]:
                labels.append(label)
                energies.append(None if of_frame is None else of_frame * units[frames.file])
        if invalid and on_bad == "stop":
            raise invalid[0].error
        block = block.select(finite)
        bad += sorted([*block.bad, *invalid], key=lambda frame: frame.number)
        num_flagged += block.num_flagged
        sizes.append(block.frames.sizes)
        predicted.append(block.shielding.astype(np.float64))
    if sodium_only and elements - {11}:
        symbol = chemical_symbols[elements.pop()]
        raise InputError(f"the default reference is that of sodium, but the frames are {symbol}: give --reference")
    return Atomic(
        np.concatenate([np.zeros(0, dtype=np.int64), *sizes]),
        np.concatenate([np.zeros(0), *predicted]),
        _of_all("DFT shieldings", labels),
        _of_all("energies", energies),
        bad,
        num_flagged,
    )


def _numbers(
    frames: FrameBlock, index: int, atoms: Atoms, key: str, length: int | None, needed: bool
) -> np.ndarray | None:
    """Read one number, or ``length`` of them, from a frame."""
    labels = labels_of(atoms)
    where = f"{frames.file}, frame {frames.number[index]}"
    if key not in labels:
        if needed:
            raise InputError(f"{where}: no {key!r}; found {', '.join(sorted(labels)) or 'no labels'}")
        return None
    values = np.asarray(labels[key])
    if values.dtype.kind not in "iuf" or values.shape != (() if length is None else (length,)):
        raise InputError(f"{where}: {key!r} must be a number{'' if length is None else ' per atom'}; fix the frame")
    return values.astype(np.float64)


def _of_all(what: str, values: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """Concatenate the values of all frames; return ``None``, with a warning if only some frames have values."""
    known = [np.atleast_1d(value) for value in values if value is not None]
    if known and len(known) < len(values):
        warnings.warn(
            f"{what} are not used: {len(values) - len(known)} of {len(values)} frames have none", stacklevel=2
        )
        return None
    return np.concatenate(known) if known else None


def spectra(
    atomic: Atomic, reference: float, width: float, shape: Shape, by: Literal["size", "all"], temperature: float
) -> list[Group]:
    """Compute the spectra of each cluster size, or of all clusters, on a common axis.

    Boltzmann weights apply within each size; with ``by="all"``, each size is weighted by its number of atoms.
    """
    kinds = {"pred": shifts(atomic.predicted, reference)}
    if atomic.labels is not None:
        kinds["dft"] = shifts(atomic.labels, reference)
    axis = shift_axis(np.concatenate(list(kinds.values())), width, shape)
    shares, isomers = _shares(atomic, temperature)
    size_of_atom = atomic.sizes.repeat(atomic.sizes)
    groups = []
    for size in np.unique(atomic.sizes).tolist() if by == "size" else [None]:
        frames = np.ones(len(atomic.sizes), dtype=bool) if size is None else atomic.sizes == size
        atoms = np.ones(len(size_of_atom), dtype=bool) if size is None else size_of_atom == size
        lines = {name: broaden(values[atoms], width, shape, axis=axis) for name, values in kinds.items()}
        if shares is not None:
            weights = shares.repeat(atomic.sizes)[atoms]
            for name, values in kinds.items():
                lines[f"{name}_boltzmann"] = broaden(values[atoms], width, shape, weights=weights, axis=axis)
        name = "all" if size is None else str(size)
        groups.append(Group(name, int(frames.sum()), int(atoms.sum()), isomers.get(size), lines))
    return groups


def _shares(atomic: Atomic, temperature: float) -> tuple[np.ndarray | None, dict[int | None, float]]:
    """Populations of frames within their size, times the number of frames, and effective numbers of isomers."""
    if atomic.energy is None:
        return None, {}
    shares, isomers = np.zeros(len(atomic.sizes)), {}
    for size in np.unique(atomic.sizes).tolist():
        of_size = atomic.sizes == size
        weights = boltzmann_weights(atomic.energy[of_size], temperature)
        shares[of_size] = weights * of_size.sum()
        isomers[size] = float(1 / np.square(weights).sum())
    return shares, isomers


def _write(groups: Sequence[Group], settings: dict, folder: Path):
    """Write the spectra as CSV, peaks and overlaps as JSON, and the figure."""
    columns: dict[str, list[np.ndarray]] = {"size": [], "shift_ppm": []}
    for group in groups:
        axis = group.spectra["pred"].shift
        columns["size"].append(np.full(len(axis), group.name))
        columns["shift_ppm"].append(axis)
        for name, lines in group.spectra.items():
            columns.setdefault(name, []).append(lines.intensity)
    write_table(folder / "spectrum.csv", {name: np.concatenate(parts) for name, parts in columns.items()})
    write_json(folder / "spectrum.json", {**settings, "spectra": [group.row for group in groups]})
    save_figure(_figure(groups), folder / "spectrum.png")


def _figure(groups: Sequence[Group]) -> Figure:
    """Spectra of each group, also Boltzmann-weighted if known, with shifts increasing to the left as usual in NMR."""
    endings = ["", "_boltzmann"] if "pred_boltzmann" in groups[0].spectra else [""]
    figure = Figure(figsize=(1.2 + 4.6 * len(endings), 1.2 + 1.25 * len(groups)), layout="constrained")
    grid = figure.subplots(len(groups), len(endings), sharex=True, squeeze=False)
    for row, group in zip(grid, groups, strict=True):
        for axes, ending in zip(row, endings, strict=True):
            _draw(axes, group, ending)
    all_lines = [lines for group in groups for lines in group.spectra.values()]
    seen = [lines.shift[lines.intensity > SHOWN * lines.intensity.max()] for lines in all_lines]
    low, high = min(shift[0] for shift in seen), max(shift[-1] for shift in seen)
    margin = 0.03 * (high - low)
    grid[0, 0].set_xlim(float(high + margin), float(low - margin))
    for axes in grid[-1]:
        axes.set_xlabel("shift δ / ppm")
        axes.xaxis.set_major_locator(MaxNLocator(8))
    if len(endings) > 1:
        for axes, heading in zip(grid[0], HEADINGS, strict=True):
            axes.set_title(heading, fontsize=SMALL, loc="right")
    figure.supylabel("intensity")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, fontsize=SMALL, frameon=False, loc="outside upper center", ncols=len(labels))
    return figure


def _draw(axes: Axes, group: Group, ending: str):
    """Draw the predicted spectrum of a group, and the DFT spectrum if known."""
    tidy(axes, "", "")
    axes.grid(visible=False)
    drawn = {key: group.spectra[key + ending] for key in COLORS if key + ending in group.spectra}
    for key, lines in drawn.items():
        axes.plot(lines.shift, lines.intensity, color=COLORS[key], linewidth=1.4, label=NAMES[key])
    axes.fill_between(drawn["pred"].shift, drawn["pred"].intensity, color=COLORS["pred"], alpha=0.15, linewidth=0)
    axes.set_yticks([])
    axes.set_ylim(bottom=0.0)
    text = "all sizes, " if group.name == "all" else f"{group.name} atoms, "
    known = ending and group.isomers is not None
    text += f"{group.isomers:.1f} effective isomers" if known else count_of(group.clusters, "cluster")
    if len(drawn) == 2:
        text += f", overlap {overlap(*drawn.values()):.2f}"
    axes.set_title(text, fontsize=SMALL, loc="left")
