"""Benchmark of selection strategies on frames of known energy."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from ase import Atoms

from pyg_clusters.analysis.plots import save_figure
from pyg_clusters.composition import comparable, composition_names, kind_label
from pyg_clusters.errors import InputError
from pyg_clusters.frames import FrameBlock, Frames, read_blocks, write_table
from pyg_clusters.frames.block import flat_arrays, offsets
from pyg_clusters.frames.checks import list_bad, no_usable_frame
from pyg_clusters.frames.energy_units import units_of_labels
from pyg_clusters.frames.paths import check_named_once
from pyg_clusters.frames.writing import open_output
from pyg_clusters.inference import Predictor
from pyg_clusters.inference.predictor import check_forces
from pyg_clusters.inference.run import Run
from pyg_clusters.inference.scoring import ScoredBlock, score_frames
from pyg_clusters.models.training_domain import domain_of
from pyg_clusters.options.screening import BenchmarkScreeningOptions
from pyg_clusters.screening.candidates import relax_atoms, warn_of_left_range
from pyg_clusters.screening.pool import FramePool
from pyg_clusters.screening.scores import (
    LOWEST,
    WINDOW,
    Ranking,
    SizeFrames,
    StrategyScore,
    check_truth,
    isomer_curve,
    isomers_by_energy,
    ranking,
    recall_curve,
    recall_curves,
    score_random,
    score_selection,
    scores_by_strategy,
)
from pyg_clusters.strategies import STRATEGIES, Bins
from pyg_clusters.structures.duplicates import merge_groups, representatives
from pyg_clusters.structures.relaxation import LEFT_RANGE
from pyg_clusters.terminal import counting, print_table

EVERY = {"every 3rd": 3, "every 4th": 4}  # conventional strategies: every n-th frame

RESULTS = ("ranking.csv", "strategies.csv", "recall.csv")

HEADINGS = {
    "size": "atoms",
    "num_frames": "frames",
    "spearman": "Spearman",
    "kendall": "Kendall",
    "mae_kcal_mol": "MAE (kcal/mol)",
    "mae_own_kcal_mol": "MAE from own energy (kcal/mol)",
    "rank_of_lowest": "rank of the lowest",
    "runs": "DFT runs",
    "recall": f"of the lowest {LOWEST}",
    "recall_of_four": f"of them among {4 * LOWEST}",
    "regret_kcal_mol": "regret (kcal/mol)",
    "regret_mev_per_atom": "regret (meV/atom)",
    "distinct_structures": "distinct by structure",
    "low_isomers": f"isomers within {WINDOW} eV",
    "low_isomers_share": "share of these",
}


@dataclass
class Benchmark:
    """Scores of the predictions and of the strategies."""

    frames: list[SizeFrames]  #: Frames of each size.
    rankings: list[Ranking]  #: Quality of the predicted ranking of each size.
    scores: list[StrategyScore]  #: Score of each strategy for each size.
    warnings: list[str]  #: Warnings about the energies.
    out: str | None = None  #: Folder of tables and figures, if they were written.

    def print(self):
        """Print the warnings, a table of the rankings, and a table of the strategies for each size."""
        for line in self.warnings:
            print(line)
        _print("Ranking by prediction", self.rankings)
        for frames in self.frames:
            title = f"Strategies on {len(frames.truth):,} frames of {kind_label(frames.kind)}"
            scores = [score for score in self.scores if score.kind == frames.kind]
            _print(title, scores, without=("size", "composition"))
        if self.out is not None:
            print(f"tables and figures in {self.out}")

    def write(self, folder: Path):
        """Write tables and figures."""
        curves = {
            frames.kind: (
                recall_curve(frames.predicted, frames.truth),
                isomer_curve(frames.predicted, frames.truth, frames.isomer),
            )
            for frames in self.frames
        }
        write_table(folder / "ranking.csv", _columns(self.rankings))
        write_table(folder / "strategies.csv", _columns(self.scores))
        lengths = [len(frames.truth) for frames in self.frames]
        table = {
            "size": np.repeat([frames.size for frames in self.frames], lengths),
            "runs": np.concatenate([np.arange(1, length + 1) for length in lengths]),
            "recall": np.concatenate([recall for recall, _ in curves.values()]),
            "low_isomers_share": np.concatenate([isomers for _, isomers in curves.values()]),
        }
        if any(frames.composition for frames in self.frames):
            table["composition"] = np.repeat(list(curves), lengths)
        write_table(folder / "recall.csv", table)
        save_figure(recall_curves(curves), folder / "figures" / "recall.png")
        save_figure(scores_by_strategy(self.scores), folder / "figures" / "strategies.png")


def benchmark_screening(options: BenchmarkScreeningOptions) -> Benchmark:
    """Benchmark all registered strategies on frames of known energy, and write tables and figures.

    Raises:
        InputError: If a file, a frame or the model cannot be used, or results already exist.
    """
    out = None if options.out is None else Path(options.out)
    with open_output(options, results=RESULTS):
        check_named_once(options.frames)
        predictor = Run(options.model).predictor(options.device)
        if options.relax:
            check_forces(predictor)
        truth = options.truth or Run(Path(options.model)).target
        if truth is None:
            raise InputError(
                f"the training target of {options.model} is unknown; give the name of the true energy with --truth"
            )
        sets = _read(options, predictor, truth)
        warnings = _check_zeros(sets, truth) if domain_of(predictor.model) is not None else []
        if options.relax:
            sets = [relaxed(frames, predictor, options.fmax, options.steps) for frames in sets]
        rankings = [ranking(frames) for frames in sets]
        scores = [score for frames in sets for score in score_strategies(frames, predictor, options)]
        benchmark = Benchmark(sets, rankings, scores, warnings, options.out)
        if out is not None:
            benchmark.write(out)
    return benchmark


def _read(options: BenchmarkScreeningOptions, predictor: Predictor, truth: str) -> list[SizeFrames]:
    """Read and score the frames, and read their minima if given."""
    keys = list(dict.fromkeys([truth, *([options.own] if options.own else [])]))
    units = {key: units_of_labels(options.frames, key, options.energy_unit) for key in keys}
    on_bad, fragments = options.on_bad, options.fragments
    frames = Frames.open(options.frames, properties=keys, on_bad=on_bad, on_missing=on_bad, fragments=fragments)
    scored = list(counting(score_frames(predictor, frames), lambda block: len(block.frames)))
    for key in keys:
        scored = [block.with_energies(key, options.on_bad, units[key][block.frames.file]) for block in scored]
    bad = [frame for block in scored for frame in block.bad]
    if not any(len(block.frames) for block in scored):
        raise no_usable_frame(options.frames, bad)
    list_bad(bad)
    if options.minima and bad:
        raise InputError("--minima requires all frames: fix the listed ones, or omit --minima")
    minima = None
    if options.minima:
        minima = list(read_blocks(options.minima, fragments=options.fragments, on_bad="skip"))
        for frame in (frame for block in minima for frame in block.unreadable):
            raise InputError(f"{frame}; --minima requires all frames: fix it, or omit --minima")
    return frames_by_size(scored, truth, minima, options.own)


def _check_zeros(sets: Sequence[SizeFrames], truth: str) -> list[str]:
    """Warning if the zeros of true and predicted energies seem to differ, see :func:`check_truth`."""
    z, predicted, true = (
        np.concatenate([getattr(frames, name).ravel() for frames in sets]) for name in ("z", "predicted", "truth")
    )
    sizes = np.concatenate([np.full(len(frames.truth), frames.size) for frames in sets])
    return check_truth(z, offsets(sizes), predicted, true, truth)


def relaxed(frames: SizeFrames, predictor: Predictor, fmax: float, steps: int) -> SizeFrames:
    """Relax frames with the model; the predicted energies become those of the minima."""
    structures = [Atoms(z, pos) for z, pos in zip(frames.z, frames.pos, strict=True)]
    minima = relax_atoms(structures, predictor, fmax, steps)
    energy = np.array([atoms.info["model_energy"] for atoms in minima])
    left = np.array([LEFT_RANGE in atoms.info for atoms in minima])
    warn_of_left_range([str(atoms.info[LEFT_RANGE]) for atoms in minima if LEFT_RANGE in atoms.info], len(minima))
    energy[left] = max(energy[~left], default=0.0)  # ranked last, together with the highest of the other frames
    if not np.isfinite(energy).all():
        index = int(np.flatnonzero(~np.isfinite(energy))[0])
        raise InputError(f"{kind_label(frames.kind)}: frame {index} has no finite energy after the relaxation")
    pos = np.array([atoms.positions for atoms in minima])
    spread = predictor(frames.z, pos).spread if frames.spread is not None else None
    return replace(
        frames,
        predicted=energy,
        initial=frames.predicted,
        inside=~left,
        pos=pos,
        spread=None if spread is None else spread.numpy().astype(float),
    )


def frames_by_size(
    scored: Sequence[ScoredBlock], truth: str, minima: Sequence[FrameBlock] | None = None, own: str | None = None
) -> list[SizeFrames]:
    """Group scored frames by size, or by composition if there are alloys."""
    scored = [block for block in scored if len(block.frames)]
    z, pos, ptr = flat_arrays([block.frames for block in scored])
    sizes = np.diff(ptr)
    predicted = np.concatenate([block.energy for block in scored]).astype(float)
    spreads = [block.spread for block in scored if block.spread is not None]
    spread = np.concatenate(spreads).astype(float) if spreads else None
    true, own_energy = (
        np.concatenate([block.frames.properties[key] for block in scored]).astype(float) if key else None
        for key in (truth, own)
    )
    assert true is not None
    structure = None if minima is None else _structures(minima, z, ptr, true)
    sets = []
    kinds = comparable(composition_names(z, ptr), sizes)
    for kind in np.unique(kinds).tolist():
        index = np.flatnonzero(kinds == kind)
        size = int(sizes[index[0]])
        atoms = ptr[index][:, None] + np.arange(size)
        optional = {
            name: None if values is None else values[index]
            for name, values in (("structure", structure), ("own", own_energy), ("spread", spread))
        }
        isomer = isomers_by_energy(true[index])
        if structure is not None:
            isomer = merge_groups(isomer, structure[index])
        composition = kind if isinstance(kind, str) else ""
        sets.append(
            SizeFrames(
                size, z[atoms], pos[atoms], predicted[index], true[index], isomer, composition=composition, **optional
            )
        )
    return sets


def _structures(minima: Sequence[FrameBlock], z: np.ndarray, ptr: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """Index of the lowest minimum of which each minimum is a copy, ``[num_frames]``."""
    z_min, pos_min, ptr_min = flat_arrays(minima)
    if len(ptr_min) != len(ptr):
        raise InputError(
            f"--minima has {len(ptr_min) - 1} structures for {len(ptr) - 1} frames: give the minimum of each frame, in "
            "the same order"
        )
    for frame, (a, b, c, d) in enumerate(zip(ptr, ptr[1:], ptr_min, ptr_min[1:], strict=False)):
        if not np.array_equal(np.sort(z[a:b]), np.sort(z_min[c:d])):
            raise InputError(
                f"--minima: structure {frame} ({d - c} atoms) does not have the same elements as its frame ({b - a} "
                "atoms): give the minimum of each frame, in the same order"
            )
    return representatives(z_min, pos_min, ptr_min, energy=energy)


def score_strategies(
    frames: SizeFrames, predictor: Predictor, options: BenchmarkScreeningOptions
) -> list[StrategyScore]:
    """Score all strategies, frames at regular intervals, and random selections of the same size."""
    pool = FramePool(frames.predicted, frames.spread, frames.z, frames.pos, predictor.model)
    selections = {}
    for name, registered in STRATEGIES.items():
        if "spread" in registered.needs and frames.spread is None:
            continue
        strategy = registered.from_options(options)
        index = np.arange(len(frames.predicted))
        if strategy.pool is not None:
            score = strategy.score(frames.predicted, frames.spread)
            index = np.argsort(score, kind="stable")[: strategy.pool * options.top]
        selections[name] = index[strategy.select(pool.subset(index)).index]
    selections |= {name: np.arange(0, len(frames.predicted), step) for name, step in EVERY.items()}
    scores = [score_selection(index, frames, name) for name, index in selections.items()]
    for name, count in (("random", options.top), ("random, as bins", len(selections[Bins.name]))):
        scores.append(score_random(count, frames, name))
    return scores


def _columns(rows: Sequence[Ranking] | Sequence[StrategyScore]) -> dict[str, list]:
    dicts = [asdict(row) for row in rows]
    return {name: [row[name] for row in dicts] for name in dicts[0] if name != "composition" or dicts[0][name]}


def _print(title: str, rows: Sequence[Ranking] | Sequence[StrategyScore], without: Sequence[str] = ()):
    columns = {HEADINGS.get(name, name): values for name, values in _columns(rows).items() if name not in without}
    print_table(title, columns, zip(*columns.values(), strict=True), words=("strategy", "composition"))
