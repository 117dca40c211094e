"""``pyg-clusters spectrum``."""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from jsonargparse import Namespace
from rich.console import Console
from rich.table import Table

from pyg_clusters.analysis.plot_style import save_figure
from pyg_clusters.analysis.plots_spectrum import Panel, spectra_figure
from pyg_clusters.analysis.spectrum import Shape, Spectrum, boltzmann_weights, overlap, shift_axis, shifts, spectrum
from pyg_clusters.cli.info import labels_of
from pyg_clusters.errors import InputError
from pyg_clusters.files import atomic_write
from pyg_clusters.formatting import cell
from pyg_clusters.frames import BadFrame, FrameBlock, write_table
from pyg_clusters.frames.checks import list_bad
from pyg_clusters.frames.outputs import open_output
from pyg_clusters.inference.loading import load_predictor
from pyg_clusters.inference.scoring import ScoredBlock, score_files, with_progress
from pyg_clusters.options.common import add_frame_options
from pyg_clusters.options.parsing import parse, verb_parser
from pyg_clusters.units import SODIUM_REFERENCE_PPM

RESULTS = ("spectrum.csv", "spectrum.json", "spectrum.png")
HEADINGS = ("all clusters alike", "Boltzmann-weighted")


@dataclass
class Atomic:
    """What is known of the atoms of all frames.

    Attributes:
        sizes: Number of atoms of each frame ``[num_frames]``.
        predicted: Shieldings in ppm ``[num_atoms]``.
        labels: Those of DFT ``[num_atoms]``, where every frame has them.
        energy: In eV ``[num_frames]``, where every frame has one.
        bad: Frames that were left out.
    """

    sizes: np.ndarray
    predicted: np.ndarray
    labels: np.ndarray | None
    energy: np.ndarray | None
    bad: list[BadFrame] = field(default_factory=list)


@dataclass
class Group:
    """The spectra of some of the frames.

    Attributes:
        name: Number of atoms of the clusters, or ``all``.
        clusters: Number of frames.
        atoms: Number of atoms of all of them.
        isomers: Effective number of isomers in equilibrium, 1 / (sum of the squares of their shares).
        spectra: By name of the column in the table.
    """

    name: str
    clusters: int
    atoms: int
    isomers: float | None
    spectra: dict[str, Spectrum]


def run(argv: Sequence[str]):
    """Writes spectra of the frames of files."""
    parser = verb_parser(
        "spectrum",
        "NMR spectrum from predicted shieldings: shifts reference - shielding, broadened, for each cluster size; with "
        "the energies of the isomers also Boltzmann-weighted, with DFT shieldings beside it. Writes spectrum.csv, "
        "spectrum.json and spectrum.png.",
        "pyg-clusters spectrum sodium clusters.extxyz --width 10 --out spectrum",
    )
    add_frame_options(parser)
    parser.add_argument(
        "--reference",
        type=float | None,
        help=f"shielding of the standard in ppm; by default, for sodium, {SODIUM_REFERENCE_PPM} (hydrated Na+)",
    )
    parser.add_argument("--width", type=float, default=10.0, help="full width of a line at half maximum in ppm")
    parser.add_argument("--shape", type=Shape, default="gaussian", help="of a line; voigt has both in equal widths")
    parser.add_argument("--by", type=Literal["size", "all"], default="size", help="a spectrum for each size, or one")
    parser.add_argument("--temperature", type=float, default=300.0, help="in K, where frames have energies")
    parser.add_argument("--energy", type=str | None, help="name of the energy (eV) in the frames; by default energy")
    parser.add_argument(
        "--target", type=str | None, help="name of the DFT shielding (ppm) of each atom; by default nmr_shielding"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the results that are in the folder")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    options = parse(parser, argv)
    shift_axis([0.0], options.width, options.shape)  # refuses a wrong width before the frames are read
    boltzmann_weights([], options.temperature)
    command = ("spectrum", *argv)
    with open_output(options.out, command, inputs=options.frames, overwrite=options.overwrite, results=RESULTS):
        write_spectra(options)


def write_spectra(options: Namespace):
    """Predict the shieldings of frames, and write their spectra."""
    predictor = load_predictor(options.model, options.device)
    blocks = score_files(predictor, options.frames, with_atoms=True, on_bad=options.on_bad, fragments=options.fragments)
    bad: list[BadFrame] = []
    atomic = gather(with_progress(blocks, bad), options.target, options.energy, options.reference is None)
    list_bad(bad)
    if not atomic.predicted.size:
        raise InputError(f"no frame of {', '.join(options.frames)} can be used: nothing to make a spectrum of")
    reference = SODIUM_REFERENCE_PPM if options.reference is None else options.reference
    groups = spectra(atomic, reference, options.width, options.shape, options.by, options.temperature)
    settings = {
        "model": str(options.model),
        "frames": [str(path) for path in options.frames],
        "reference_ppm": reference,
        "width_ppm": options.width,
        "shape": options.shape,
        "temperature_K": None if atomic.energy is None else options.temperature,
    }
    write_results(groups, settings, options.out)
    _print(groups, options.out)


def gather(blocks: Iterable[ScoredBlock], target: str | None, energy: str | None, sodium_only: bool) -> Atomic:
    """Predictions and labels of all frames.

    Args:
        blocks: Scored frames, as ASE has them too.
        target: Name of the DFT shieldings; that of the shipped data, where they are there, if not given.
        energy: Name of the energy; likewise.
        sodium_only: Whether the reference is that of sodium.

    Raises:
        InputError: If a label that was asked for is missing or is no number, or the atoms are of several elements, or
            of another element than the reference.
    """
    sizes: list[np.ndarray] = []
    predicted: list[np.ndarray] = []
    labels: list[np.ndarray | None] = []
    energies: list[float | None] = []
    elements: set[int] = set()
    for block in blocks:
        frames = block.frames
        sizes.append(frames.sizes)
        predicted.append(block.shielding.astype(np.float64))
        elements.update(np.unique(frames.z).tolist())
        if len(elements) > 1:
            names = ", ".join(chemical_symbols[number] for number in sorted(elements))
            raise InputError(
                f"{frames.file}: a spectrum is that of one nucleus, but there are {names}; split the frames"
            )
        for place, atoms in enumerate(frames.atoms or ()):
            labels.append(_numbers(frames, place, atoms, target or "nmr_shielding", len(atoms), target is not None))
            one = _numbers(frames, place, atoms, energy or "energy", None, energy is not None)
            energies.append(None if one is None else float(one))
    if sodium_only and elements - {11}:
        symbol = chemical_symbols[elements.pop()]
        raise InputError(f"the default reference is that of sodium, the frames are {symbol}: give --reference")
    empty = np.zeros(0)
    return Atomic(
        np.concatenate([np.zeros(0, dtype=np.int64), *sizes]),
        np.concatenate([empty, *predicted]),
        _all("DFT shieldings", labels, lambda: np.concatenate([empty, *labels])),
        _all("energies", energies, lambda: np.array(energies, dtype=np.float64)),
    )


def _numbers(
    frames: FrameBlock, place: int, atoms: Atoms, key: str, length: int | None, needed: bool
) -> np.ndarray | None:
    """The finite numbers of a frame under a name: one, or ``length`` of them."""
    found = labels_of(atoms)
    where = f"{frames.file}, frame {frames.number[place]}"
    if key not in found:
        if needed:
            raise InputError(f"{where}: no {key!r}; found {', '.join(sorted(found)) or 'no labels'}")
        return None
    values = np.asarray(found[key])
    if values.dtype.kind not in "iuf" or values.shape != (() if length is None else (length,)):
        raise InputError(f"{where}: {key!r} must be a number{'' if length is None else ' per atom'}; fix the frame")
    if not np.isfinite(values).all():
        raise InputError(f"{where}: {key!r} is {values[~np.isfinite(values)].flat[0]}; fix or remove the frame")
    return values.astype(np.float64)


def _all(what: str, values: list, join):
    """The values of all frames; nothing, with a word, where only some have them."""
    missing = sum(value is None for value in values)
    if missing == len(values):
        return None
    if missing:
        print(f"{what} are left out: {missing} of {len(values)} frames have none", file=sys.stderr)
        return None
    return join()


def spectra(
    atomic: Atomic, reference: float, width: float, shape: Shape, by: Literal["size", "all"], temperature: float
) -> list[Group]:
    """The spectra of each cluster size, or of all clusters, on a common axis.

    Isomers are weighted within a size; with ``by="all"`` a size has the weight of its number of atoms.
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
        made = {name: spectrum(values[atoms], width, shape, axis=axis) for name, values in kinds.items()}
        if shares is not None:
            weights = shares.repeat(atomic.sizes)[atoms]
            for name, values in kinds.items():
                made[f"{name}_boltzmann"] = spectrum(values[atoms], width, shape, weights=weights, axis=axis)
        name = "all" if size is None else str(size)
        groups.append(Group(name, int(frames.sum()), int(atoms.sum()), isomers.get(size), made))
    return groups


def _shares(atomic: Atomic, temperature: float) -> tuple[np.ndarray | None, dict[int | None, float]]:
    """Share of each frame among those of its size, times their number; the effective number of isomers."""
    if atomic.energy is None:
        return None, {}
    shares, isomers = np.zeros(len(atomic.sizes)), {}
    for size in np.unique(atomic.sizes).tolist():
        of_size = atomic.sizes == size
        weights = boltzmann_weights(atomic.energy[of_size], temperature)
        shares[of_size] = weights * of_size.sum()
        isomers[size] = float(1 / np.square(weights).sum())
    return shares, isomers


def write_results(groups: Sequence[Group], settings: dict, folder: Path):
    """Writes the spectra as a table, what they have in common as JSON, and the figure."""
    columns: dict[str, list[np.ndarray]] = {"size": [], "shift_ppm": []}
    for group in groups:
        axis = group.spectra["pred"].shift
        columns["size"].append(np.full(len(axis), group.name))
        columns["shift_ppm"].append(axis)
        for name, lines in group.spectra.items():
            columns.setdefault(name, []).append(lines.intensity)
    write_table(folder / "spectrum.csv", {name: np.concatenate(parts) for name, parts in columns.items()})
    with atomic_write(folder / "spectrum.json") as path:
        path.write_text(json.dumps({**settings, "spectra": [_row(group) for group in groups]}, indent=2) + "\n")
    save_figure(_figure(groups), folder / "spectrum.png")


def _row(group: Group) -> dict[str, Any]:
    """What is said of a group beside its curves; without energies or labels there is less."""
    spectra = group.spectra
    row: dict[str, Any] = {"size": group.name, "clusters": group.clusters, "atoms": group.atoms}
    row |= {f"{name}_peak_ppm": lines.peak for name, lines in spectra.items()}
    for ending in ("", "_boltzmann"):
        if f"dft{ending}" in spectra:
            row[f"overlap{ending}"] = overlap(spectra[f"pred{ending}"], spectra[f"dft{ending}"])
    if group.isomers is not None:
        row["effective_isomers"] = group.isomers
    return row


def _figure(groups: Sequence[Group]):
    endings = ["", "_boltzmann"] if "pred_boltzmann" in groups[0].spectra else [""]
    names = {"pred": "predicted", "dft": "DFT"}
    rows = []
    for group in groups:
        size = "all sizes" if group.name == "all" else f"{group.name} atoms"
        panels = []
        for ending in endings:
            drawn = {names[key]: group.spectra[key + ending] for key in names if key + ending in group.spectra}
            what = f"{group.clusters} cluster{'s' if group.clusters > 1 else ''}"
            if ending and group.isomers is not None:
                what = f"{group.isomers:.1f} effective isomers"
            panels.append(Panel(f"{size}, {what}", drawn))
        rows.append(panels)
    return spectra_figure(rows, HEADINGS if len(endings) > 1 else ())


def _print(groups: Sequence[Group], folder: Path):
    labels = {
        "size": "atoms in the cluster",
        "clusters": "clusters",
        "pred_peak_ppm": "peak (ppm)",
        "dft_peak_ppm": "peak, DFT (ppm)",
        "overlap": "overlap",
        "effective_isomers": "effective isomers",
        "pred_boltzmann_peak_ppm": "peak, weighted (ppm)",
        "dft_boltzmann_peak_ppm": "peak, DFT, weighted (ppm)",
        "overlap_boltzmann": "overlap, weighted",
    }
    rows = [_row(group) for group in groups]
    table = Table(title="Spectra: shifts in ppm", title_justify="left")
    table.add_column("")
    for row in rows:
        table.add_column(str(row["size"]), justify="right")
    for key, label in labels.items():
        if key != "size" and any(key in row for row in rows):
            table.add_row(label, *(cell(row[key]) if key in row else "-" for row in rows))
    Console(width=100).print(table)
    for name in RESULTS:
        print(f"  {folder / name}")
