"""Generation and relaxation of sodium clusters, and search for minima of copper-gold clusters."""

import numpy as np
import torch
from ase import Atoms
from ase.calculators.emt import EMT
from ase.optimize import FIRE

from pyg_clusters.composition import all_compositions
from pyg_clusters.structures import ClusterEMT, Gupta, GuptaCalculator, quench, relax, sblda

SIZE = 40
GENERATED = 50
RELAXED = 50
ONE_BY_ONE = 3
SEARCHED = 40
SEARCHED_BY_ASE = 5


def test_generate(least_seconds, capsys):
    def generate():
        rng = np.random.default_rng(0)
        return [sblda(SIZE, rng=rng) for _ in range(GENERATED)]

    seconds = least_seconds(3, ours=generate)
    with capsys.disabled():
        print(
            f"\n\nS-BLDA clusters of {SIZE} atoms, one core, least of 3 rounds of {GENERATED}"
            f"\n  for comparison                               {20:10,.0f} clusters/s"
            f"\n  sblda                                        {GENERATED / seconds['ours']:10,.0f} clusters/s"
        )


def test_relax(least_seconds, capsys):
    rng = np.random.default_rng(0)
    clusters = [Atoms([11] * SIZE, sblda(SIZE, rng=rng)) for _ in range(RELAXED)]
    z, batch = torch.full((RELAXED * SIZE,), 11), torch.arange(RELAXED).repeat_interleave(SIZE)
    pos = torch.from_numpy(np.concatenate([atoms.positions for atoms in clusters]))

    def one_by_one():
        for atoms in clusters[:ONE_BY_ONE]:
            copy = atoms.copy()
            copy.calc = GuptaCalculator("Na")
            FIRE(copy, logfile=None).run(fmax=0.02, steps=500)

    seconds = least_seconds(2, ours=lambda: relax(Gupta("Na"), z, pos, batch), baseline=one_by_one)
    ours, theirs = RELAXED / seconds["ours"], ONE_BY_ONE / seconds["baseline"]
    with capsys.disabled():
        print(
            f"\n\n{RELAXED} S-BLDA clusters of {SIZE} atoms relaxed to 0.02 eV/Å, one thread, least of 2 rounds"
            f"\n  baseline (ASE's FIRE, timed on {ONE_BY_ONE})             {theirs:10,.1f} clusters/s"
            f"\n  relax                                        {ours:10,.1f} clusters/s"
            f"\n  ratio                                        {ours / theirs:10.1f}"
        )


def test_quench(least_seconds, capsys):
    compositions = all_compositions(["Cu", "Au"], range(20, 61))

    def search(calculator, count):
        return [atoms.info["energy"] for atoms in quench(compositions, calculator, count)]

    found = {}
    seconds = least_seconds(
        2,
        ours=lambda: found.update(ours=search(ClusterEMT(), SEARCHED)),
        baseline=lambda: found.update(baseline=search(EMT(), SEARCHED_BY_ASE)),
    )
    np.testing.assert_allclose(found["ours"][:1], found["baseline"][:1], atol=1e-2)
    ours, theirs = SEARCHED / seconds["ours"], SEARCHED_BY_ASE / seconds["baseline"]
    with capsys.disabled():
        print(
            f"\n\nDistinct minima of Cu-Au clusters of 20 to 60 atoms (EMT, 0.01 eV/Å), one thread, least of 2 rounds"
            f"\n  baseline (quench with ASE's EMT, timed on {SEARCHED_BY_ASE})    {theirs:10,.1f} minima/s"
            f"\n  quench with ClusterEMT                       {ours:10,.1f} minima/s"
            f"\n  ratio                                        {ours / theirs:10.1f}"
        )
