"""Checks for models of clusters, including your own."""

import copy
import tempfile
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

from pyg_clusters.errors import InputError
from pyg_clusters.geometry import ptr_to_batch
from pyg_clusters.models.checkpoint import rebuild, save_model
from pyg_clusters.models.contract import HasAtomicEnergies, HasFastPath


def validate_model(
    model: nn.Module,
    *,
    atomic_number: int = 31,
    sizes: tuple[int, ...] = (13, 1, 2, 20),
    per_atom: bool = False,
    tolerance: float = 1e-9,
    single_tolerance: float = 1e-4,
    seed: int = 0,
):
    """Check physical symmetries, batching and saving of a model on random clusters.

    The following properties are checked:

    - Rotation, reflection and translation do not change the output; permutation of the atoms does not change it either
      (or permutes values per atom).
    - The output for a cluster is the same in a batch and alone, and finite for clusters of one and two atoms.
    - Inputs are not modified.
    - A model rebuilt from its saved files gives the same values, and single precision agrees with double precision.
    - Atomic energies, if the model has them, sum to the energy; the fast path, if any, gives the same values.
    - A cluster with a position that is not finite, or of 1e200 Å, gives NaN (or raises an
      :class:`~pyg_clusters.errors.InputError`) and does not affect the other clusters of its batch.

    Args:
        model: Called as ``model(z, pos, batch)``; it is not modified.
        atomic_number: Element of the clusters.
        sizes: Numbers of atoms of the clusters.
        per_atom: Whether the model returns a value per atom ``[num_atoms]`` instead of one per cluster
            ``[num_graphs]``.
        tolerance: Maximum relative difference in double precision.
        single_tolerance: Maximum relative difference between single and double precision.
        seed: Random seed of the clusters.

    Raises:
        AssertionError: If a property does not hold; the message names the property and the deviation.
    """
    generator = torch.Generator().manual_seed(seed)
    double = copy.deepcopy(model).double().eval()
    z, pos, ptr = random_clusters(sizes, atomic_number, generator)
    batch = ptr_to_batch(ptr)

    def run(pos: Tensor, z: Tensor = z, batch: Tensor = batch, model: nn.Module = double) -> Tensor:
        with torch.enable_grad():  # models may need gradients for forces
            return model(z, pos, batch).detach()

    def same(found: Tensor, what: str, expected: Tensor, limit: float = tolerance):
        scale = max(1.0, float(expected.abs().max()))
        error = float((found.double() - expected.double()).abs().max()) / scale
        assert error <= limit, f"{type(model).__name__} fails: {what} (relative difference {error:.2g} > {limit:.2g})"

    before = z.clone(), pos.clone(), batch.clone()
    expected = run(pos)
    unchanged = all(torch.equal(a, b) for a, b in zip((z, pos, batch), before, strict=True))
    assert unchanged, f"{type(model).__name__} fails: it changes its inputs"
    wanted = (sum(sizes) if per_atom else len(sizes),)
    assert tuple(expected.shape) == wanted, (
        f"{type(model).__name__} fails: output {tuple(expected.shape)}, not {wanted}"
    )
    assert expected.isfinite().all(), f"{type(model).__name__} fails: output is not finite: {expected.tolist()}"

    rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.double))
    same(run(pos @ rotation), "rotation", expected)
    same(run(-pos), "reflection", expected)
    same(run(pos + torch.tensor([10.0, -20.0, 30.0], dtype=torch.double)), "translation", expected)

    if not per_atom and isinstance(double, HasAtomicEnergies):
        shares = double.atomic_energies(z, pos, batch).detach()
        same(scatter(shares, batch, dim=0, reduce="sum"), "sum of its atomic energies", expected)
    if isinstance(double, HasFastPath) and (fast := double.fast_path(torch.device("cpu"), False)) is not None:
        clusters = slice(int(ptr[0]), int(ptr[1]))
        values = fast(z[None, clusters], pos[None, clusters]).detach()
        same(values[:, 0] if values.dim() == 2 else values, "its fast path", expected[:1])

    order = torch.cat([a + torch.randperm(b - a, generator=generator) for a, b in pairwise(ptr)])
    same(run(pos[order], z[order]), "permutation of the atoms", expected[order] if per_atom else expected)

    alone = [run(pos[a:b], z[a:b], batch[a:b] * 0) for a, b in pairwise(ptr)]
    same(torch.cat(alone), "batched equals one by one", expected)

    last = slice(int(ptr[-2]), int(ptr[-1])) if per_atom else slice(len(sizes) - 1, len(sizes))
    for value in (float("nan"), float("inf"), 1e200):
        wrong = pos.clone()
        wrong[-1, 1] = value
        try:
            found = run(wrong)
        except InputError:
            continue
        plausible = found[last].isfinite()
        assert not plausible.any(), (
            f"{type(model).__name__} fails: an atom at {value} Å gives {found[last][plausible][0]:.6g}"
        )
        same(found[: last.start], f"a cluster beside one with an atom at {value} Å", expected[: last.start])

    with tempfile.TemporaryDirectory() as folder:
        try:
            save_model(double, folder)
        except TypeError as error:
            raise AssertionError(f"{type(model).__name__} fails: saving ({error})") from error
        loaded = rebuild(type(model), folder)
    same(run(pos, model=loaded), "rebuilt from its saved files", expected, 0.0)

    single = copy.deepcopy(model).float().eval()
    same(run(pos.float(), model=single), "single against double precision", expected, single_tolerance)


def random_clusters(
    sizes: tuple[int, ...], atomic_number: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Compact clusters of perturbed lattice points, at least about 2 Å apart.

    Returns:
        Atomic numbers ``[num_atoms]``, positions ``[num_atoms, 3]`` in Å in double precision, and offsets
        ``[num_graphs + 1]``.
    """
    side = torch.arange(-4.0, 5.0, dtype=torch.double)
    lattice = 2.8 * torch.cartesian_prod(side, side, side)
    clusters = []
    for size in sizes:
        center = torch.rand(3, generator=generator, dtype=torch.double)
        nearest = (lattice - center).norm(dim=1).argsort()[:size]
        noise = torch.rand(size, 3, generator=generator, dtype=torch.double) - 0.5
        clusters.append(lattice[nearest] + 0.5 * noise)
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    return torch.full((int(ptr[-1]),), atomic_number), torch.cat(clusters), ptr
