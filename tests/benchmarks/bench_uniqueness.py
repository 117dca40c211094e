"""Search for copies among 100,000 candidates."""

import os
import time

import numpy as np
from scipy.spatial.transform import Rotation

from pyg_clusters.structures.duplicates import copies, representatives
from pyg_clusters.structures.superposition import structure_distance

MINIMA = 1000
COPIES = 100
NOISE = 0.01
WANTED = 60
VIBRATING = 10_000, 400
COMPARED = 200
"""Pairs on which the comparison of all is timed."""


def test_copies(minima, capsys):
    """Random minima, and shuffled copies of each: rotated, reflected, permuted and with noise."""
    rng = np.random.default_rng(0)
    structures, label = [], np.repeat(np.arange(MINIMA), COPIES)
    for place in rng.choice(len(minima), MINIMA, replace=False):
        pos = minima[int(place)].pos.double().numpy()
        turns = Rotation.random(COPIES, rng=rng).as_matrix() * rng.choice([-1, 1], COPIES)[:, None, None]
        structures += [(pos @ turn)[rng.permutation(len(pos))] + rng.normal(0, NOISE, pos.shape) for turn in turns]
    order = rng.permutation(len(structures))
    label = label[order]
    pos = np.concatenate([structures[place] for place in order])
    ptr = np.cumsum([0, *(len(structures[place]) for place in order)])
    z = np.full(len(pos), 31)

    start, start_cpu = time.perf_counter(), time.process_time()
    found = representatives(z, pos, ptr)
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu

    kept = np.unique(found)
    missed = len(kept) - len(np.unique(label[kept]))
    false = int((label[found] != label).sum())
    baseline = _seconds_of_a_pair(pos, ptr) * len(label) * (len(label) - 1) / 2
    with capsys.disabled():
        print(
            f"\n\nCopies among {len(label):,} candidates, {MINIMA:,} minima x {COPIES}, noise of {NOISE} Å, "
            f"{os.cpu_count()} cores (load {os.getloadavg()[0]:.1f})"
            f"\n  wanted, on 2 cores                           {WANTED:10,.0f} s"
            f"\n  representatives                              {seconds:10,.1f} s"
            f"\n    processor time of all threads              {cpu:10,.1f} s"
            f"\n  ratio                                        {WANTED / seconds:10.1f}"
            f"\n  baseline (all pairs of a size, timed on {COMPARED})  {baseline:10,.0f} s"
            f"\n  distinct structures found                    {len(kept):10,}"
            f"\n  missed copies (kept as distinct)             {missed:10,}"
            f"\n  false merges (taken for copies of another)   {false:10,}"
        )
    assert missed <= 0.001 * len(label) and false <= 0.001 * len(label)


def test_copies_of_vibrating_frames(minima, capsys):
    """400 frames of vibrating clusters compared with 10,000 others, as in the check of a split for copies."""
    rng = np.random.default_rng(0)
    with capsys.disabled():
        print(f"\n\nCopies of {VIBRATING[1]} vibrating frames among {VIBRATING[0]:,}, processor time")
        for pos in (minima[0].pos.double().numpy(), minima[len(minima) - 1].pos.double().numpy()):
            num_atoms = len(pos)
            for amplitude in (0.02, 0.05, 0.1):
                known, frames = (pos + rng.normal(0, amplitude, (count, *pos.shape)) for count in VIBRATING)
                start = time.process_time()
                found = copies(*_flat(frames), _flat(known))
                seconds = time.process_time() - start
                print(f"  {num_atoms} atoms, {amplitude} Å {seconds:10.1f} s, copies {int((found >= 0).sum())}")


def _flat(structures: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    count, num_atoms, _ = structures.shape
    return np.full(count * num_atoms, 31), structures.reshape(-1, 3), np.arange(count + 1) * num_atoms


def _seconds_of_a_pair(pos: np.ndarray, ptr: np.ndarray) -> float:
    """Time of comparing two structures of one size, multiplied by the share of pairs of equal size."""
    sizes = np.diff(ptr)
    first = np.flatnonzero(sizes == 46)[: COMPARED + 1]
    structures = [pos[ptr[place] : ptr[place + 1]] for place in first]
    species = np.full(46, 31)
    start = time.perf_counter()
    for a, b in zip(structures, structures[1:], strict=False):
        structure_distance(species, a, b)
    seconds = (time.perf_counter() - start) / (len(structures) - 1)
    return seconds * float(np.square(np.bincount(sizes) / len(sizes)).sum())
