from importlib import import_module
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch

from pyg_clusters.analysis.pair_distribution import PairDistribution, pair_distribution

MINIMA = Path(__file__).parent.parent / "datasets" / "gallium_clusters" / "gallium_minima.extxyz"
GOLDEN = (1 + 5**0.5) / 2


def icosahedron(radius: float) -> torch.Tensor:
    """A central atom and twelve vertices at ``radius``."""
    vertices = [(0.0, a, b) for a in (-1.0, 1.0) for b in (-GOLDEN, GOLDEN)]
    corners = torch.tensor([vertex[i:] + vertex[:i] for vertex in vertices for i in range(3)], dtype=torch.float64)
    return torch.cat([torch.zeros(1, 3, dtype=torch.float64), corners * radius / corners.norm(dim=1, keepdim=True)])


def pairs_per_bin(distribution: PairDistribution, num_atoms: int) -> dict[float, int]:
    """Number of ordered pairs of atoms in each non-empty bin, by the centre of the bin."""
    pairs = np.diff(distribution.neighbors_within(), prepend=0.0) * num_atoms
    filled = np.flatnonzero(pairs > 0.5)
    return {round(float(distribution.r[place]), 6): round(float(pairs[place])) for place in filled}


def test_dimer_fills_one_bin():
    pos = torch.tensor([[0.0, 0.0, 1.0], [0.0, 2.52, 1.0]])
    distribution = pair_distribution(pos, torch.tensor([0, 2]), r_max=4.0, bin_width=0.5)
    volume = 4 / 3 * np.pi * (3.0**3 - 2.5**3)
    expected = np.zeros(8)
    expected[5] = 1 / volume  # each of the two atoms has one neighbour between 2.5 and 3 Å
    np.testing.assert_allclose(distribution.g, expected, rtol=1e-12)
    np.testing.assert_allclose(distribution.r, np.arange(0.25, 4.0, 0.5))
    assert distribution.bin_width == pytest.approx(0.5)
    assert distribution.smallest_distance == pytest.approx(2.52)


def test_icosahedron_by_hand():
    # Vertices at R = 2.7 Å: edge a = R / sin(72°) = 2.8390 Å, the next distance is golden * a = 4.5936 Å, the diameter
    # 5.4 Å. Ordered pairs: 2 * 12 centre-vertex, 12 * 5 edges, 12 * 5 next-nearest, 12 * 1 opposite.
    distribution = pair_distribution(icosahedron(2.7), torch.tensor([0, 13]), r_max=6.0, bin_width=0.08)
    assert pairs_per_bin(distribution, 13) == {2.68: 24, 2.84: 60, 4.6: 60, 5.4: 12}
    assert distribution.neighbors_within()[-1] == pytest.approx(12.0)
    assert distribution.smallest_distance == pytest.approx(2.7)


def test_clusters_do_not_see_each_other_and_weigh_by_their_atoms():
    pos = torch.cat([icosahedron(2.7), torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 2.5]]), torch.zeros(1, 3)])
    distribution = pair_distribution(pos, torch.tensor([0, 13, 15, 16]))
    assert distribution.neighbors_within()[-1] == pytest.approx((13 * 12 + 2 * 1 + 0) / 16)


def test_blocks_of_clusters_give_the_same(monkeypatch):
    pos = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)) * 3
    ptr = torch.tensor([0, 20, 21, 50, 60])
    whole = pair_distribution(pos, ptr)
    monkeypatch.setattr(import_module("pyg_clusters.analysis.pair_distribution"), "PAIRS_AT_ONCE", 100)
    np.testing.assert_array_equal(pair_distribution(pos.numpy(), ptr.numpy()).g, whole.g)


def test_single_atoms_have_no_pairs():
    distribution = pair_distribution(torch.zeros(2, 3), torch.tensor([0, 1, 2]))
    assert not distribution.g.any()
    assert distribution.smallest_distance == float("inf")


def test_gallium_minima_of_the_pair_distribution():
    frames = ase.io.read(MINIMA, index="::5")
    ptr = np.concatenate([[0], np.cumsum([len(frame) for frame in frames])])
    distribution = pair_distribution(np.concatenate([frame.positions for frame in frames]), ptr)
    assert distribution.smallest_distance == pytest.approx(2.5, abs=0.05)
    assert distribution.suggested_radii() == pytest.approx((3.41, 6.06), abs=0.01)  # near 3.49 and 6.3 of the paper


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="at least one atom"):
        pair_distribution(torch.zeros(0, 3), torch.tensor([0]))
    with pytest.raises(ValueError, match="bin_width must be positive"):
        pair_distribution(torch.zeros(1, 3), torch.tensor([0, 1]), bin_width=0.0)
