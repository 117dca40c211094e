"""Choosing candidates as ``pyg-clusters screen`` is told to."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jsonargparse import Namespace

from pyg_clusters.cli.screening_options import BINNED, BINS, POOLS
from pyg_clusters.frames import FrameBlock, Frames
from pyg_clusters.geometry import GALLIUM_RADII
from pyg_clusters.inference import Predictor
from pyg_clusters.inference.choosing import (
    Choice,
    bin_width,
    cluster_features,
    farthest,
    lowest_of_bins,
    lowest_of_cells,
    lowest_unique,
    mean_shell_counts,
)
from pyg_clusters.inference.scoring import ScoredBlock
from pyg_clusters.inference.screening import Candidate, Screening, choose, choose_again, rank
from pyg_clusters.inference.uniqueness import SAME_STRUCTURE
from pyg_clusters.models.checkpoint import is_ensemble, model_folder, read_configuration
from pyg_clusters.units import KCAL_PER_MOL


def screen_frames(blocks: Iterator[ScoredBlock], options: Namespace, predictor: Predictor) -> Screening:
    """Chooses among scored frames by ``--choose``."""
    if options.choose in BINNED:
        return _screen_by_bins(blocks, options, predictor)
    if options.choose == "rank":
        return rank(blocks, options.top)
    pool = options.pool or POOLS[options.choose] * options.top

    def way(candidates: list[Candidate]) -> Choice:
        energy = np.array([candidate.energy for candidate in candidates])
        z = np.array([candidate.atoms.numbers for candidate in candidates])
        pos = np.array([candidate.atoms.positions for candidate in candidates])
        if options.choose == "diverse":
            return farthest(energy, cluster_features(predictor.model, z, pos), options.top)
        ptr = np.arange(len(z) + 1) * z.shape[1]
        tolerance = options.tolerance or SAME_STRUCTURE
        choice = lowest_unique(energy, z.ravel(), pos.reshape(-1, 3), ptr, options.top, tolerance)
        if len(choice.places) < options.top and len(candidates) == pool:
            warnings.warn(
                f"{len(choice.places)} distinct structures among the {pool} lowest frames of {z.shape[1]} atoms, "
                f"{options.top} were wanted; a larger --pool may find more",
                stacklevel=2,
            )
        return choice

    return choose_again(rank(blocks, pool), way)


def _screen_by_bins(blocks: Iterator[ScoredBlock], options: Namespace, predictor: Predictor) -> Screening:
    number = options.bins or BINS
    keys = [options.truth] if options.truth else []

    def reread() -> Iterator[FrameBlock]:
        frames = Frames.open(
            options.frames, properties=keys, with_atoms=True, on_bad=options.on_bad, half_written="leave"
        )
        return frames.blocks()

    def describe(frames: FrameBlock) -> np.ndarray:
        return mean_shell_counts(frames.pos, frames.ptr, getattr(predictor.model, "radii", GALLIUM_RADII))

    if options.choose == "bins":
        return choose(blocks, lambda energy, _: lowest_of_bins(energy, number), reread)
    return choose(blocks, lambda energy, counts: lowest_of_cells(energy, counts, number), reread, describe)


def warn_of_narrow_bins(screening: Screening, num_bins: int, model: Path):
    """Says so where bins are narrower than the error of the model: it cannot tell the frames of two of them apart."""
    error = error_on_test_set(model)
    if error is None:
        return
    widths = {
        int(size): KCAL_PER_MOL * bin_width(screening.energy[screening.size == size], num_bins)
        for size in np.unique(screening.size)
    }
    narrow = {size: width for size, width in widths.items() if width < error}
    if narrow:
        size, width = min(narrow.items(), key=lambda item: item[1])
        others = f" and of {len(narrow) - 1} other sizes" if len(narrow) > 1 else ""
        warnings.warn(
            f"the bins of {size} atoms{others} are {width:.2f} kcal/mol wide, narrower than the error of the model on "
            f"its test set ({error:.2f} kcal/mol); it does not tell neighbouring bins apart, fewer --bins would do",
            stacklevel=2,
        )


def error_on_test_set(model: Path) -> float | None:
    """Mean absolute error of a model on its test set in kcal/mol per cluster, where its run or its notes tell it."""
    metrics = model / "test_metrics.json"
    if metrics.is_file():
        return json.loads(metrics.read_text())["overall"].get("mae_kcal_mol")
    if is_ensemble(model):
        return None
    return read_configuration(model_folder(model)).get("notes", {}).get("test_mae_kcal_mol")
