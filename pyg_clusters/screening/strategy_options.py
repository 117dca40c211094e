"""Choosing candidates as ``pyg-clusters screen`` is told to."""

import warnings
from collections.abc import Iterator

import numpy as np
from jsonargparse import Namespace

from pyg_clusters.errors import InputError
from pyg_clusters.frames import FrameBlock, Frames
from pyg_clusters.geometry import GALLIUM_RADII
from pyg_clusters.inference import Predictor
from pyg_clusters.inference.scoring import ScoredBlock
from pyg_clusters.screening.candidates import Candidate, Screening
from pyg_clusters.screening.options import (
    BINNED,
    BINS,
    FMAX,
    POOLS,
    RELAXED_POOL,
    SPREAD_WEIGHT,
    STEPS,
)
from pyg_clusters.screening.relaxation import relax_candidates
from pyg_clusters.screening.selection import choose, choose_again, rank
from pyg_clusters.screening.strategies import (
    Selection,
    cluster_features,
    farthest,
    lower_bounds,
    lowest,
    lowest_bounds,
    lowest_of_bins,
    lowest_of_cells,
    lowest_unique,
    mean_shell_counts,
)
from pyg_clusters.structures.duplicates import SAME_STRUCTURE


def screen_frames(blocks: Iterator[ScoredBlock], options: Namespace, predictor: Predictor) -> Screening:
    """Chooses among scored frames by ``--choose``, with ``--relax`` among what they relax to."""
    if options.choose in BINNED:
        return _screen_by_bins(blocks, options, predictor)
    weight = _spread_weight(options)
    by = (lambda block: lower_bounds(block.energy, block.spread, weight)) if options.choose == "uncertain" else None
    pool = options.pool or options.top * (RELAXED_POOL if options.relax else POOLS.get(options.choose, 1))
    screening = rank(blocks, pool, by)
    if options.relax:
        screening = relax_candidates(screening, predictor, options.fmax or FMAX, options.steps or STEPS)
    return choose_again(
        screening,
        lambda candidates: _choose(candidates, options, predictor, len(candidates) == pool),
        lowest_first=options.choose != "uncertain",
    )


def check_spread(options: Namespace, predictor: Predictor):
    """Checks that the model tells how sure it is, if that is asked for.

    Raises:
        InputError: If it does not.
    """
    if options.choose == "uncertain" and not predictor.gives_spread:
        raise InputError(
            f"{options.model} does not tell how sure it is, which --choose uncertain goes by; train an ensemble (train "
            "--ensemble 5), or run calibrate --spread last_layer"
        )


def _spread_weight(options: Namespace) -> float:
    return SPREAD_WEIGHT if options.spread_weight is None else options.spread_weight


def _choose(candidates: list[Candidate], options: Namespace, predictor: Predictor, full: bool) -> Selection:
    """Chooses among candidates of one size, all that there were or a pool that is full."""
    energy = np.array([candidate.energy for candidate in candidates])
    if options.choose == "rank":
        return lowest(energy, options.top)
    if options.choose == "uncertain":
        spread = np.array([candidate.spread for candidate in candidates])
        return lowest_bounds(energy, spread, _spread_weight(options), options.top)
    z = np.array([candidate.atoms.numbers for candidate in candidates])
    pos = np.array([candidate.atoms.positions for candidate in candidates])
    if options.choose == "diverse":
        low = np.argsort(energy, kind="stable")
        if options.relax:
            low = low[: POOLS["diverse"] * options.top]
        choice = farthest(energy[low], cluster_features(predictor.model, z[low], pos[low]), options.top)
        return Selection(low[choice.places], choice.why)
    ptr = np.arange(len(z) + 1) * z.shape[1]
    tolerance = options.tolerance or SAME_STRUCTURE
    choice = lowest_unique(energy, z.ravel(), pos.reshape(-1, 3), ptr, options.top, tolerance)
    if len(choice.places) < options.top and full:
        warnings.warn(
            f"{len(choice.places)} distinct structures among the {len(z)} lowest frames of {z.shape[1]} atoms, "
            f"{options.top} were wanted; a larger --pool may find more",
            stacklevel=2,
        )
    return choice


def _screen_by_bins(blocks: Iterator[ScoredBlock], options: Namespace, predictor: Predictor) -> Screening:
    number = options.bins or BINS
    keys = [options.truth] if options.truth else []

    def reread() -> Iterator[FrameBlock]:
        frames = Frames.open(
            options.frames, properties=keys, with_atoms=True, on_bad=options.on_bad, fragments=options.fragments
        )
        return frames.blocks(report=False)

    def describe(frames: FrameBlock) -> np.ndarray:
        return mean_shell_counts(frames.pos, frames.ptr, getattr(predictor.model, "radii", GALLIUM_RADII))

    if options.choose == "bins":
        return choose(blocks, lambda energy, _: lowest_of_bins(energy, number), reread)
    return choose(blocks, lambda energy, counts: lowest_of_cells(energy, counts, number), reread, describe)
