"""``pyg-clusters benchmark-screening``."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from ase import Atoms
from jsonargparse import Namespace
from rich.console import Console
from rich.table import Table

from pyg_clusters.analysis.plot_style import save_figure
from pyg_clusters.composition import comparable, composition_names, kind_label
from pyg_clusters.datasets.label_reading import unit_of_labels
from pyg_clusters.errors import InputError
from pyg_clusters.evaluation.baseline import OtherZero, other_zero
from pyg_clusters.formatting import cell, print_lines
from pyg_clusters.frames import BadFrame, FrameBlock, read_blocks, write_table
from pyg_clusters.frames.checks import list_bad
from pyg_clusters.frames.outputs import open_output
from pyg_clusters.geometry import GALLIUM_RADII
from pyg_clusters.inference import Predictor
from pyg_clusters.inference.loading import load_predictor
from pyg_clusters.inference.scoring import ScoredBlock, check_numbers, score_files, with_progress
from pyg_clusters.options.common import add_energy_unit_option, add_frame_options
from pyg_clusters.options.parsing import parse, verb_parser
from pyg_clusters.screening.benchmark import (
    LOWEST,
    SAME_ENERGY,
    WINDOW,
    Ranking,
    StrategyScore,
    isomer_curve,
    isomers_by_energy,
    joined,
    ranking,
    recall_curve,
    worth,
    worth_at_random,
)
from pyg_clusters.screening.options import BINS, FMAX, POOLS, SPREAD_WEIGHT, STEPS
from pyg_clusters.screening.plots import recall_curves, worth_by_way
from pyg_clusters.screening.relaxation import check_forces, relax_atoms, warn_of_left_range
from pyg_clusters.screening.strategies import (
    cluster_features,
    farthest,
    lowest,
    lowest_bounds,
    lowest_of_bins,
    lowest_of_cells,
    lowest_unique,
    mean_shell_counts,
)
from pyg_clusters.structures.duplicates import representatives
from pyg_clusters.structures.relax_batched import LEFT_RANGE
from pyg_clusters.training.run import target_of_run

EVERY = {"every 3rd": 3, "every 4th": 4}
"""The conventional way optimises every frame that is so many after the one before."""

RESULTS = ("ranking.csv", "worth.csv", "recall.csv")

LABELS = {
    "size": "atoms",
    "composition": "composition",
    "frames": "frames",
    "spearman": "Spearman",
    "kendall": "Kendall",
    "mae_kcal_mol": "MAE (kcal/mol)",
    "mae_own_kcal_mol": "MAE from own energy",
    "rank_of_lowest": "rank of lowest",
    "recall": f"of the lowest {LOWEST}",
    "recall_of_four": f"of them among {4 * LOWEST}",
    "way": "way",
    "runs": "runs",
    "regret_kcal_mol": "regret (kcal/mol)",
    "regret_mev_per_atom": "regret (meV/atom)",
    "enrichment": "enrichment",
    "distinct": "distinct",
    "distinct_structures": "distinct by structure",
    "low_isomers": f"isomers within {WINDOW} eV",
    "low_isomers_share": "share of these",
}


@dataclass
class SizeFrames:
    """The frames of one size; where there are alloys, of one composition.

    Attributes:
        size: Number of atoms.
        z: Atomic numbers ``[num_frames, num_atoms]``.
        pos: Positions ``[num_frames, num_atoms, 3]`` in Å.
        predicted: Predicted energies ``[num_frames]`` in eV.
        truth: True energies ``[num_frames]`` in eV.
        isomer: Number of the isomer of each ``[num_frames]``.
        structure: Number of the structure that each quenches to ``[num_frames]``, where the minima are known.
        own: Energies of the frames themselves ``[num_frames]`` in eV, where they are known.
        spread: Of the predictions ``[num_frames]`` in eV, where the model gives one.
        composition: Formula, where there are alloys.
    """

    size: int
    z: np.ndarray
    pos: np.ndarray
    predicted: np.ndarray
    truth: np.ndarray
    isomer: np.ndarray
    structure: np.ndarray | None = None
    own: np.ndarray | None = None
    spread: np.ndarray | None = None
    composition: str = ""

    @property
    def kind(self) -> int | str:
        """What the frames are told from others by."""
        return self.composition or self.size


def run(argv: Sequence[str]):
    """Prints what each way of choosing frames is worth, and writes tables and figures."""
    parser = verb_parser(
        "benchmark-screening",
        "What choosing frames by a model is worth, on frames whose true energies are known (those of the minima that "
        "they quench to): rank correlations; and for each way of choosing, beside random frames and every third or "
        f"fourth frame: regret, recall of the lowest {LOWEST}, enrichment, distinct isomers.",
        "pyg-clusters benchmark-screening gallium gallium_md_46.extxyz.xz --truth quench_binding_energy --out worth",
    )
    add_frame_options(parser)
    parser.add_argument(
        "--truth",
        type=str | None,
        help="name of the true energy in the frames; by default what the model was trained on",
    )
    parser.add_argument(
        "--own", type=str | None, help="name of the energy of the frame itself: the error against it is reported, too"
    )
    add_energy_unit_option(parser, "--truth and --own")
    parser.add_argument(
        "--minima",
        type=str | None,
        nargs="+",
        help="files of the minima of the frames, in the same order: isomers are the same if their structures are; "
        f"without this only if their true energies are within {SAME_ENERGY * 1000:g} meV",
    )
    parser.add_argument(
        "--relax", action="store_true", help="relax all frames with the forces of the model first, and choose by these"
    )
    parser.add_argument(
        "--fmax", type=float, default=FMAX, help="for --relax: largest force on an atom in the end, in eV/Å"
    )
    parser.add_argument("--steps", type=int, default=STEPS, help="for --relax: most evaluations of the forces")
    parser.add_argument("--top", type=int, default=100, help="frames that are chosen of each size")
    parser.add_argument("--bins", type=int, default=BINS, help="bins of predicted energy of each size")
    parser.add_argument("--overwrite", action="store_true", help="replace the results that are in the folder")
    parser.add_argument("--out", type=Path | None, help="folder of the results; without it they are printed only")
    options = parse(parser, argv)
    for name in ("top", "bins", "steps"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} must be at least 1, got {getattr(options, name)}")
    if not (math.isfinite(options.fmax) and options.fmax > 0):
        raise InputError(f"--fmax must be a positive force in eV/Å, got {options.fmax:g}")
    command, inputs = ("benchmark-screening", *argv), [*options.frames, *(options.minima or [])]
    with open_output(options.out, command, inputs=inputs, overwrite=options.overwrite, results=RESULTS):
        evaluate_screening(options)


def evaluate_screening(options: Namespace):
    """Score frames of known energy, and print and write what choosing among them is worth."""
    predictor = load_predictor(options.model, options.device)
    truth = options.truth or target_of_run(options.model)
    if truth is None:
        raise InputError(f"{options.model} does not tell what it was trained on: name the true energy by --truth")
    keys = list(dict.fromkeys([truth, *([options.own] if options.own else [])]))
    unit = unit_of_labels(options.frames, options.energy_unit)
    if options.relax:
        check_forces(predictor)
    blocks = score_files(
        predictor,
        options.frames,
        properties=keys,
        on_bad=options.on_bad,
        fragments=options.fragments,
    )
    bad: list[BadFrame] = []
    scored = list(with_progress(blocks, bad))
    for key in keys:
        scored = [check_numbers(block, key, unit) for block in scored]
    list_bad(bad)
    if not any(len(block.frames) for block in scored):
        raise InputError(f"no frame of {', '.join(options.frames)} can be used")
    if options.minima and bad:
        raise InputError("--minima needs all frames: fix those that are listed, or leave --minima out")
    minima = _minima(options) if options.minima else None
    sets = frames_by_size(scored, truth, minima, options.own)
    print_lines([f"warning: {zero} (--truth {truth})" for zero in _zeros(sets)])
    if options.relax:
        sets = [relaxed(frames, predictor, options.fmax, options.steps) for frames in sets]
    ranks = [
        replace(
            ranking(frames.predicted, frames.truth, frames.isomer, frames.size, frames.own),
            composition=frames.composition,
        )
        for frames in sets
    ]
    worths = [row for frames in sets for row in ways(frames, predictor, options.top, options.bins)]
    console = Console(width=120)
    console.print(_table(ranks, "Ranking by prediction"))
    for frames in sets:
        title = f"Ways of choosing among {len(frames.truth):,} frames of {kind_label(frames.kind)}"
        rows = [row for row in worths if (row.composition or row.size) == frames.kind]
        console.print(_table(rows, title, leave=("size", "composition")))
    if options.out is not None:
        write_results(sets, ranks, worths, options.out)
        print(f"tables and figures in {options.out}")


def _minima(options: Namespace) -> list[FrameBlock]:
    """The minima of the frames, all of which are needed."""
    blocks = list(read_blocks(options.minima, fragments=options.fragments, on_bad="skip"))
    for frame in (frame for block in blocks for frame in block.unreadable):
        raise InputError(f"{frame}; --minima needs all frames: fix it, or leave --minima out")
    return blocks


def _zeros(sets: Sequence[SizeFrames]) -> list[OtherZero]:
    """The difference between the zeros of true and predicted energies, if there is one."""
    z, predicted, true = (
        np.concatenate([getattr(frames, name).ravel() for frames in sets]) for name in ("z", "predicted", "truth")
    )
    sizes = np.concatenate([np.full(len(frames.truth), frames.size) for frames in sets])
    zero = other_zero(z, np.concatenate([[0], np.cumsum(sizes)]), predicted, true)
    return [] if zero is None else [zero]


def relaxed(frames: SizeFrames, predictor: Predictor, fmax: float, steps: int) -> SizeFrames:
    """The frames at the minima of the model, with its energies there.

    Args:
        frames: Those of one size.
        predictor: Of a model with forces.
        fmax: A frame is relaxed when no force on an atom is larger, in eV/Å.
        steps: Most evaluations of energy and forces for a frame.

    Raises:
        InputError: If a frame has no finite energy any more.
    """
    found = relax_atoms([Atoms(z, pos) for z, pos in zip(frames.z, frames.pos, strict=True)], predictor, fmax, steps)
    energy = np.array([atoms.info["model_energy"] for atoms in found])
    left = np.array([LEFT_RANGE in atoms.info for atoms in found])
    warn_of_left_range([str(atoms.info[LEFT_RANGE]) for atoms in found if LEFT_RANGE in atoms.info], len(found))
    energy[left] = max(energy[~left], default=0.0)  # last, but for the highest of the others
    if not np.isfinite(energy).all():
        number = int(np.flatnonzero(~np.isfinite(energy))[0])
        raise InputError(f"frame {number} of those of {kind_label(frames.kind)} has no finite energy after relaxing")
    spread = predictor(found).spread if frames.spread is not None else None
    return replace(
        frames,
        predicted=energy,
        pos=np.array([atoms.positions for atoms in found]),
        spread=None if spread is None else spread.numpy().astype(float),
    )


def frames_by_size(
    scored: Sequence[ScoredBlock], truth: str, minima: Sequence[FrameBlock] | None = None, own: str | None = None
) -> list[SizeFrames]:
    """Gathers scored frames by size, or by composition where there are alloys.

    Args:
        scored: The frames.
        truth: Name of their true energy in eV.
        minima: The minima of the frames, in the same order.
        own: Name of the energy of the frames themselves in eV.

    Raises:
        InputError: If the minima are not as many, or not of the same composition.
    """
    scored = [block for block in scored if len(block.frames)]
    z, pos, ptr = _flat([block.frames for block in scored])
    sizes = np.diff(ptr)
    predicted = np.concatenate([block.energy for block in scored]).astype(float)
    spreads = [block.spread for block in scored if block.spread is not None]
    energies = {
        key: np.concatenate([block.frames.properties[key] for block in scored]).astype(float)
        for key in (truth, own)
        if key
    }
    structure = None if minima is None else _structures(minima, z, ptr, energies[truth])
    sets = []
    kinds = comparable(composition_names(z, ptr), sizes)
    for kind in np.unique(kinds).tolist():
        frames = np.flatnonzero(kinds == kind)
        size = sizes[frames[0]]
        atoms = ptr[frames][:, None] + np.arange(size)
        true = energies[truth][frames]
        isomer = isomers_by_energy(true)
        of_size = SizeFrames(int(size), z[atoms], pos[atoms], predicted[frames], true, isomer)
        of_size.composition = kind if isinstance(kind, str) else ""
        if structure is not None:
            of_size.structure = structure[frames]
            of_size.isomer = joined(isomer, structure[frames])
        if own:
            of_size.own = energies[own][frames]
        if spreads:
            of_size.spread = np.concatenate(spreads)[frames].astype(float)
        sets.append(of_size)
    return sets


def _structures(minima: Sequence[FrameBlock], z: np.ndarray, ptr: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """For each minimum the one that it is a copy of, ``[num_frames]``."""
    z_min, pos_min, ptr_min = _flat(minima)
    if len(ptr_min) != len(ptr):
        raise InputError(
            f"--minima has {len(ptr_min) - 1} structures for {len(ptr) - 1} frames: give the minimum of each frame, in "
            "the same order"
        )
    for frame, (a, b, c, d) in enumerate(zip(ptr, ptr[1:], ptr_min, ptr_min[1:], strict=False)):
        if not np.array_equal(np.sort(z[a:b]), np.sort(z_min[c:d])):
            raise InputError(
                f"--minima: structure {frame} has {d - c} atoms, its frame {b - a}, or other elements: give the "
                "minimum of each frame, in the same order"
            )
    return representatives(z_min, pos_min, ptr_min, energy=energy)


def ways(frames: SizeFrames, predictor: Predictor, top: int, num_bins: int) -> list[StrategyScore]:
    """What each way of choosing is worth, beside as many random frames and the conventional way."""
    energy, number, size = frames.predicted, len(frames.predicted), frames.size
    order = np.argsort(energy, kind="stable")
    unique, diverse = (order[: POOLS[way] * top] for way in ("unique", "diverse"))
    z, pos = frames.z[unique].ravel(), frames.pos[unique].reshape(-1, 3)
    distinct = lowest_unique(energy[unique], z, pos, np.arange(len(unique) + 1) * size, top)
    features = cluster_features(predictor.model, frames.z[diverse], frames.pos[diverse])
    radii = getattr(predictor.model, "radii", GALLIUM_RADII)
    counts = mean_shell_counts(frames.pos.reshape(-1, 3), np.arange(number + 1) * size, radii)
    choices = {
        "rank": lowest(energy, top).places,
        "bins": lowest_of_bins(energy, num_bins).places,
        "descriptor bins": lowest_of_cells(energy, counts, num_bins).places,
        "unique": unique[distinct.places],
        "diverse": diverse[farthest(energy[diverse], features, top).places],
        **{way: np.arange(0, number, step) for way, step in EVERY.items()},
    }
    if frames.spread is not None:
        choices["uncertain"] = lowest_bounds(energy, frames.spread, SPREAD_WEIGHT, top).places
    known = (frames.truth, frames.isomer, size)
    rows = [worth(places, *known, way, structure=frames.structure) for way, places in choices.items()]
    at_random = [("random", top), ("random, as bins", len(choices["bins"]))]
    rows += [worth_at_random(runs, *known, way, structure=frames.structure) for way, runs in at_random]
    return [replace(row, composition=frames.composition) for row in rows]


def write_results(sets: Sequence[SizeFrames], ranks: Sequence[Ranking], worths: Sequence[StrategyScore], folder: Path):
    """Writes tables and figures."""
    curves = {
        frames.kind: (
            recall_curve(frames.predicted, frames.truth),
            isomer_curve(frames.predicted, frames.truth, frames.isomer),
        )
        for frames in sets
    }
    write_table(folder / "ranking.csv", _columns(ranks))
    write_table(folder / "worth.csv", _columns(worths))
    lengths = [len(recall) for recall, _ in curves.values()]
    table = {
        "size": np.repeat([frames.size for frames in sets], lengths),
        "runs": np.concatenate([np.arange(1, length + 1) for length in lengths]),
        "recall": np.concatenate([recall for recall, _ in curves.values()]),
        "low_isomers_share": np.concatenate([isomers for _, isomers in curves.values()]),
    }
    if any(frames.composition for frames in sets):
        table["composition"] = np.repeat(list(curves), lengths)
    write_table(folder / "recall.csv", table)
    save_figure(recall_curves(curves, LOWEST, WINDOW), folder / "figures" / "recall.png")
    save_figure(worth_by_way([asdict(row) for row in worths], WINDOW), folder / "figures" / "worth.png")


def _flat(blocks: Sequence[FrameBlock]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ptr = np.concatenate([[0], np.cumsum(np.concatenate([block.sizes for block in blocks]))]).astype(int)
    return np.concatenate([block.z for block in blocks]), np.concatenate([block.pos for block in blocks]), ptr


def _columns(rows: Sequence[Ranking] | Sequence[StrategyScore]) -> dict[str, list]:
    dicts = [asdict(row) for row in rows]
    return {name: [row[name] for row in dicts] for name in dicts[0] if name != "composition" or dicts[0][name]}


def _table(rows: Sequence[Ranking] | Sequence[StrategyScore], title: str, leave: Sequence[str] = ()) -> Table:
    table = Table(title=title, title_justify="left")
    names = [name for name in _columns(rows) if name not in leave]
    for name in names:
        table.add_column(LABELS[name], justify="left" if name in ("way", "composition") else "right")
    for row in rows:
        table.add_row(*(cell(getattr(row, name)) for name in names))
    return table
