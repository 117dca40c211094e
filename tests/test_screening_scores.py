"""Scores of strategies, compared with values counted by hand."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from pyg_clusters.screening.scores import (
    SizeFrames,
    isomer_curve,
    isomers_by_energy,
    ranking,
    recall_curve,
    score_random,
    score_selection,
)
from pyg_clusters.structures.duplicates import merge_groups
from pyg_clusters.units import KCAL_PER_MOL

TRUTH = np.array([-10.0, -9.9995, -9.8, -9.6, -9.2, -9.0])
"""Five isomers, the lowest of two frames; three isomers within 0.5 eV."""
ISOMER = isomers_by_energy(TRUTH)
PREDICTED = np.array([-9.7, -9.1, -10.0, -9.9, -9.8, -9.0])
"""Ranks the frames 2, 3, 4, 0, 1, 5."""


def size_frames(predicted, truth, isomer, size=46, **values):
    shape = (len(truth), size)
    return SizeFrames(size, np.full(shape, 31), np.zeros((*shape, 3)), predicted, truth, isomer, **values)


def test_isomers_by_energy():
    assert ISOMER.tolist() == [0, 0, 1, 2, 3, 4]
    chain = np.array([0.0, 0.0008, 0.0016, 0.0024])  # each within 1 meV of the next, not of the first
    assert isomers_by_energy(chain).tolist() == [0, 0, 1, 1]
    assert isomers_by_energy(np.zeros(0)).tolist() == []


def test_merged_groups():
    by_energy, by_structure = np.array([0, 0, 1, 2, 3]), np.array([7, 9, 9, 4, 7])
    assert merge_groups(by_energy, by_structure).tolist() == [0, 0, 0, 1, 0]
    assert merge_groups(by_energy, np.arange(5)).tolist() == [0, 0, 1, 2, 3]
    assert merge_groups(np.arange(5), by_structure).tolist() == [0, 1, 1, 2, 0]


def test_recall_curve():
    """The lowest two frames, 0 and 1, are the fourth and the fifth by prediction."""
    assert recall_curve(PREDICTED, TRUTH, lowest=2).tolist() == [0, 0, 0, 0.5, 1, 1]
    assert recall_curve(TRUTH, TRUTH, lowest=3).tolist() == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1])
    assert recall_curve(PREDICTED, TRUTH, lowest=50)[-1] == 1


def test_isomer_curve():
    """The isomers within 0.5 eV are 1, 2 and 0, at ranks 1, 2 and 4; frame 1 adds no new one."""
    assert isomer_curve(PREDICTED, TRUTH, ISOMER, window=0.5).tolist() == pytest.approx([1 / 3, 2 / 3, 2 / 3, 1, 1, 1])


def test_ranking():
    own = PREDICTED + 2.0
    row = ranking(size_frames(PREDICTED, TRUTH, ISOMER, own=own), lowest=2)
    assert row.spearman == pytest.approx(spearmanr(PREDICTED, TRUTH).statistic)
    assert row.kendall == pytest.approx(kendalltau(PREDICTED, TRUTH).statistic)
    assert row.mae_kcal_mol == pytest.approx(KCAL_PER_MOL * np.abs(PREDICTED - TRUTH).mean())
    assert row.mae_own_kcal_mol == pytest.approx(2 * KCAL_PER_MOL)
    assert (row.num_frames, row.rank_of_lowest, row.recall, row.recall_of_four) == (6, 4, 0, 1)


def test_ranking_of_perfect_predictions_and_of_one_frame():
    row = ranking(size_frames(TRUTH, TRUTH, ISOMER), lowest=3)
    assert (row.spearman, row.kendall, row.rank_of_lowest, row.recall) == (pytest.approx(1), pytest.approx(1), 1, 1)
    assert np.isnan(row.mae_own_kcal_mol)
    single = ranking(size_frames(np.array([-1.0]), np.array([-2.0]), np.array([0])))
    assert np.isnan(single.spearman) and (single.rank_of_lowest, single.recall) == (1, 1)


def test_score_of_a_selection():
    """Frames 1, 2 and 4 contain one of the lowest two frames, three isomers, and two of the three within 0.5 eV."""
    frames = size_frames(PREDICTED, TRUTH, ISOMER, structure=np.array([0, 1, 2, 2, 2, 2]))
    row = score_selection(np.array([4, 1, 2]), frames, "unique", lowest=2)
    assert (row.size, row.strategy, row.runs) == (46, "unique", 3)
    assert row.regret_kcal_mol == pytest.approx(0.0005 * KCAL_PER_MOL)
    assert row.regret_mev_per_atom == pytest.approx(0.5 / 46)
    assert row.recall == 0.5
    assert row.enrichment == pytest.approx(1)  # three of six random frames also contain half of them
    assert row.distinct == 1
    assert row.distinct_structures == pytest.approx(2 / 3)
    assert (row.low_isomers, row.low_isomers_share) == (2, pytest.approx(2 / 3))


def test_score_of_copies():
    row = score_selection(np.array([0, 1]), size_frames(PREDICTED, TRUTH, ISOMER), "unique", lowest=2)
    assert (row.distinct, row.low_isomers, row.recall, row.enrichment) == (0.5, 1, 1, 3)
    assert np.isnan(row.distinct_structures)


def test_random_choices_have_the_mean_that_counting_gives():
    """A random third of the frames contains a third of the lowest (enrichment 1), and all frames contain all."""
    truth = np.random.default_rng(0).normal(-110, 0.6, 300)
    frames = size_frames(truth, truth, isomers_by_energy(truth))
    row = score_random(100, frames, "random", draws=400)
    assert row.recall == pytest.approx(1 / 3, abs=0.015)
    assert row.enrichment == pytest.approx(1, abs=0.05)
    assert row.runs == 100
    everything = asdict(score_random(999, frames, "random", draws=2))
    assert everything == pytest.approx(asdict(score_selection(np.arange(300), frames, "random")), nan_ok=True)
    assert row == score_random(100, frames, "random", draws=400) or np.isnan(row.distinct_structures)


def test_errors_of_relaxed_frames():
    """Relaxation lowers each energy by 1 eV; the second frame left the valid geometries and is only ranked last."""
    hot, truth = np.array([-9.0, -8.0, -7.0]), np.array([-10.1, -9.1, -8.1])
    predicted, inside = np.array([-10.0, -8.0, -8.0]), np.array([True, False, True])
    frames = size_frames(predicted, truth, np.arange(3), 13, own=hot + 0.3, initial=hot, inside=inside)
    row = ranking(frames)
    assert row.mae_kcal_mol == pytest.approx(0.1 * KCAL_PER_MOL)
    assert row.mae_own_kcal_mol == pytest.approx(0.3 * KCAL_PER_MOL)
    assert np.isnan(ranking(replace(frames, inside=np.zeros(3, dtype=bool))).mae_kcal_mol)
