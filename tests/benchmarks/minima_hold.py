"""Stability of the test minima of a trained model when they are perturbed and relaxed.

    pyg-clusters train own-minima --data.dataset.files gold --data.dataset.target comment --out runs/gold
    OMP_NUM_THREADS=1 python tests/benchmarks/minima_hold.py runs/gold --count 200
    OMP_NUM_THREADS=1 python tests/benchmarks/minima_hold.py runs/gold --count 100 --calculator emt

Each test minimum is relaxed with the model, and so is a copy whose positions are perturbed by Gaussian noise. The
script counts the copies that leave the range of the training set (that collapse or fall apart) and those that end
within 0.05 Å (root mean square after superposition, in any order of the atoms) of the relaxed minimum, and prints the
distance of the relaxed minimum from that of the data. With ``--calculator`` the same structures are relaxed with an ASE
calculator instead, and the copies are those of its own minima: they show how many copies return on the surface of a
physical potential.
"""

import argparse
import itertools
import time
from functools import partial

import numpy as np
import torch
from ase import Atoms

from pyg_clusters.geometry import ptr_to_batch
from pyg_clusters.inference.run import Run
from pyg_clusters.structures import Relaxation, local_minimum, relax
from pyg_clusters.structures.calculators import named_calculator
from pyg_clusters.structures.superposition import structure_distance

NEAR = 0.05
"""Distance in Å within which a copy has returned."""


def relaxed_by_model(model: torch.nn.Module, z: torch.Tensor, pos: torch.Tensor, ptr: torch.Tensor) -> Relaxation:
    """Clusters relaxed to a largest force of 0.01 eV/Å."""
    return relax(model, z, pos, ptr_to_batch(ptr), fmax=0.01, max_steps=1000)


def relaxed_by_calculator(name: str, z: torch.Tensor, pos: torch.Tensor, ptr: torch.Tensor) -> Relaxation:
    """The same, one cluster at a time."""
    clusters = [Atoms(z[first:last].numpy(), pos[first:last].numpy()) for first, last in itertools.pairwise(ptr)]
    calculator = named_calculator(name, sorted({symbol for atoms in clusters for symbol in atoms.symbols}))
    found = [local_minimum(atoms, calculator, fmax=0.01, max_steps=1000) for atoms in clusters]
    return Relaxation(
        torch.from_numpy(np.concatenate([each.atoms.positions for each in found])),
        *(torch.tensor([getattr(each, field) for each in found]) for field in ("energy", "fmax", "steps", "converged")),
        torch.tensor([each.left_range is not None for each in found]),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--count", type=int, default=200, help="copies, in turn of the test minima")
    parser.add_argument("--perturbation", type=float, default=0.1, help="standard deviation in Å")
    parser.add_argument("--calculator", help="gupta, emt, tblite, ..., instead of the model")
    args = parser.parse_args()
    run, start = Run(args.run), time.process_time()
    test = run.split.test
    minima = test[torch.arange(min(args.count, test.numel()))]
    batch = run.data.batches.stored(minima.tolist())
    z, pos, sizes = batch.z, batch.pos, batch.ptr.diff()
    if args.calculator:
        relaxed = partial(relaxed_by_calculator, args.calculator)
    else:
        relaxed = partial(relaxed_by_model, run.model.eval())
    wells = relaxed(z, pos, batch.ptr)

    of = torch.arange(args.count) % minima.numel()
    atoms = torch.cat([torch.arange(int(batch.ptr[i]), int(batch.ptr[i + 1])) for i in of])
    ptr = torch.cat([torch.zeros(1, dtype=torch.long), sizes[of].cumsum(0)])
    noise = torch.randn(atoms.numel(), 3, generator=torch.Generator().manual_seed(0))
    perturbed = wells.pos if args.calculator else pos
    copies = relaxed(z[atoms], perturbed[atoms] + args.perturbation * noise, ptr)

    def apart(a: torch.Tensor, b: torch.Tensor, numbers: torch.Tensor) -> float:
        return structure_distance(numbers.numpy(), a.double().numpy(), b.double().numpy(), within=0.5)

    moved = [
        apart(wells.pos[first:last], pos[first:last], z[first:last])
        for first, last in zip(batch.ptr[:-1].tolist(), batch.ptr[1:].tolist(), strict=True)
    ]
    returned = []
    for i, first, last in zip(of.tolist(), ptr[:-1].tolist(), ptr[1:].tolist(), strict=True):
        well = slice(int(batch.ptr[i]), int(batch.ptr[i + 1]))
        returned.append(apart(copies.pos[first:last], wells.pos[well], z[well]))
    lost = copies.left_range | ~copies.energy.isfinite()
    print(
        f"{minima.numel()} test minima, relaxed themselves: {int(wells.left_range.sum())} leave the range, "
        f"{int(wells.converged.sum())} converge, {np.median(moved):.3f} Å from the data in the median, "
        f"{np.mean(np.array(moved) < 0.1):.0%} within 0.1 Å\n"
        f"{args.count} copies perturbed by {args.perturbation} Å: {int(lost.sum())} leave the range, "
        f"{int(copies.converged.sum())} converge, {np.mean(np.array(returned) < NEAR):.0%} within {NEAR} Å of where "
        f"the minimum ends; {time.process_time() - start:.0f} s"
    )


if __name__ == "__main__":
    main()
