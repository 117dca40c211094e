"""Training loop for the models of several libraries; :mod:`beside_peers` runs it with the Python of each.

    PYTHON tests/benchmarks/peers.py PEER FOLDER MINUTES FORCE_WEIGHT WEIGHT_DECAY

The script trains on ``train.extxyz`` of a folder, keeps the weights that are best on ``val.extxyz``, tests them on
``test.extxyz`` and writes ``PEER-MINUTES-FORCE_WEIGHT-WEIGHT_DECAY.json``. It imports this package only for the models
of this package, so that the environment of a peer needs only its library.

All models have the same loss (mean absolute errors of energies in eV per cluster and of forces in eV/Å, the latter
times the force weight in Å), AdamW with the same weight decay (MACE with its own), averaged weights (decay 0.99), and
a learning rate that decays as a cosine over the processor time, from the rate in the examples of each library. A fit
of the composition to the training set is subtracted from the energies. Neighbour lists of the training frames are
computed once; their time counts, and that of validation does not.
"""

import json
import math
import sys
import time
from collections.abc import Iterable, Sequence
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from ase import Atoms
from ase.io import read
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import dataloader

KCAL_PER_MOL = 23.060548
CUTOFF = 5.0
"""Of the peers, in Å."""
POINTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 7 / 8, 1)
"""Shares of the processor time after which the validation part is evaluated."""

Evaluation = tuple[Tensor, Tensor]
"""Energies ``[num_graphs]`` in eV and forces ``[num_atoms, 3]`` in eV/Å."""


class SmoothDART:
    """SmoothDART of this package, with the settings of ``new-recipe``."""

    packages = ("pyg_clusters",)
    batch_size = 16
    weight_decay: float | None = None  # the same for all, unless the examples of a library have another

    def __init__(self, frames: Sequence[Atoms], recipe: dict):
        from pyg_clusters.models import SmoothDART as Model

        self.rate = recipe["model"]["init_args"]["optimizer"]["init_args"]["lr"]
        self.model = Model(**recipe["model"]["init_args"]["model"]["init_args"])
        fit_scale(self.model, frames)

    def prepare(self, atoms: Atoms) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(atoms.numbers).long(), torch.from_numpy(atoms.positions).float()

    def collate(self, items: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, ...]:
        sizes = torch.tensor([z.numel() for z, _ in items])
        batch = torch.arange(len(items)).repeat_interleave(sizes)
        return torch.cat([z for z, _ in items]), torch.cat([pos for _, pos in items]), batch

    def evaluate(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> Evaluation:
        z, pos, batch = inputs
        pos = pos.detach().requires_grad_()
        energy = model(z, pos, batch)
        (gradient,) = torch.autograd.grad(energy.sum(), pos, create_graph=model.training)
        return energy, -gradient


class HDNN(SmoothDART):
    """HDNN of this package, with forces."""

    packages = ("pyg_clusters", "torchani")

    def __init__(self, frames: Sequence[Atoms], recipe: dict):
        from pyg_clusters.models import HDNN as Model

        self.rate = 1e-3
        self.model = Model(elements=sorted({symbol for atoms in frames for symbol in atoms.get_chemical_symbols()}))
        fit_scale(self.model, frames)


def fit_scale(model: Any, frames: Sequence[Atoms]):
    """Fit offset and scale of a model of this package to all frames."""
    z = torch.cat([torch.from_numpy(atoms.numbers).long() for atoms in frames])
    ptr = torch.tensor([0, *np.cumsum([len(atoms) for atoms in frames])])
    model.scale.fit(z, ptr, torch.tensor([atoms.info["target"] for atoms in frames]).float())


class MACE:
    """A small MACE (Batatia et al. 2022): 32 scalars and 32 vectors, two interactions."""

    packages = ("mace-torch", "e3nn")
    batch_size = 8
    rate = 0.01
    weight_decay = 5e-7  # at this rate a decay of 0.2 triples the errors

    def __init__(self, frames: Sequence[Atoms], recipe: dict):
        from mace.modules import ScaleShiftMACE, interaction_classes  # isort: skip  # before e3nn, so that its files can be loaded
        from e3nn.o3 import Irreps
        from mace.tools import AtomicNumberTable

        numbers = sorted({int(number) for atoms in frames for number in atoms.numbers})
        self.table = AtomicNumberTable(numbers)
        forces = np.concatenate([atoms.arrays["REF_forces"] for atoms in frames])
        neighbors = [len(pairs_of(atoms)[0]) / len(atoms) for atoms in frames[:200]]
        self.model = ScaleShiftMACE(
            r_max=CUTOFF,
            num_bessel=8,
            num_polynomial_cutoff=5,
            max_ell=2,
            interaction_cls=interaction_classes["RealAgnosticResidualInteractionBlock"],
            interaction_cls_first=interaction_classes["RealAgnosticInteractionBlock"],
            num_interactions=2,
            num_elements=len(numbers),
            hidden_irreps=Irreps("32x0e + 32x1o"),
            MLP_irreps=Irreps("16x0e"),
            atomic_energies=np.zeros(len(numbers)),
            avg_num_neighbors=float(np.mean(neighbors)),
            atomic_numbers=numbers,
            correlation=2,
            gate=torch.nn.functional.silu,
            atomic_inter_scale=float(np.sqrt((forces**2).mean())),
            atomic_inter_shift=0.0,
        )

    def prepare(self, atoms: Atoms) -> Any:
        from mace.data import AtomicData, KeySpecification, config_from_atoms

        bare = Atoms(atoms.numbers, atoms.positions)
        return AtomicData.from_config(config_from_atoms(bare, KeySpecification()), self.table, CUTOFF)

    def collate(self, items: Sequence[Any]) -> Any:
        from mace.tools import torch_geometric

        return torch_geometric.batch.Batch.from_data_list(list(items))

    def evaluate(self, model: nn.Module, inputs: Any) -> Evaluation:
        found = model(inputs.to_dict(), training=model.training, compute_force=True)
        return found["energy"], found["forces"]


class PaiNN:
    """The PaiNN of SchNetPack (Schütt, Unke, Gastegger 2021): 64 features, three interactions."""

    packages = ("schnetpack",)
    batch_size = 8
    rate = 1e-3
    weight_decay: float | None = None

    def __init__(self, frames: Sequence[Atoms], recipe: dict):
        if not hasattr(dataloader, "T_co"):  # SchNetPack 2.1 imports this name, which torch 2.13 no longer has
            dataloader.T_co = TypeVar("T_co", covariant=True)
        import schnetpack as spk

        representation = spk.representation.PaiNN(
            n_atom_basis=64,
            n_interactions=3,
            radial_basis=spk.nn.GaussianRBF(n_rbf=20, cutoff=CUTOFF),
            cutoff_fn=spk.nn.CosineCutoff(CUTOFF),
        )
        self.model = spk.model.NeuralNetworkPotential(
            representation=representation,
            input_modules=[spk.atomistic.PairwiseDistances()],
            output_modules=[spk.atomistic.Atomwise(n_in=64, output_key="energy"), spk.atomistic.Forces()],
        )

    def prepare(self, atoms: Atoms) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        i, j = pairs_of(atoms)
        z, pos = torch.from_numpy(atoms.numbers).long(), torch.from_numpy(atoms.positions).float()
        return z, pos, torch.from_numpy(i), torch.from_numpy(j)

    def collate(self, items: Sequence[tuple[Tensor, ...]]) -> dict[str, Tensor]:
        sizes = torch.tensor([z.numel() for z, *_ in items])
        first = [0, *sizes.cumsum(0).tolist()]
        i, j = (torch.cat([item[index] + start for item, start in zip(items, first, strict=False)]) for index in (2, 3))
        return {
            "_atomic_numbers": torch.cat([z for z, *_ in items]),
            "_positions": torch.cat([item[1] for item in items]),
            "_n_atoms": sizes,
            "_idx_m": torch.arange(len(items)).repeat_interleave(sizes),
            "_idx_i": i,
            "_idx_j": j,
            "_offsets": torch.zeros(i.numel(), 3),
            "_cell": torch.zeros(len(items), 3, 3),
        }

    def evaluate(self, model: nn.Module, inputs: dict[str, Tensor]) -> Evaluation:
        found = model(dict(inputs))
        return found["energy"], found["forces"]


PEERS = {"SmoothDART": SmoothDART, "HDNN": HDNN, "MACE": MACE, "PaiNN": PaiNN}


def pairs_of(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Indices ``[num_pairs]`` of the atoms of all pairs within the cutoff, in both directions."""
    pos = atoms.positions
    distance = np.linalg.norm(pos[:, None] - pos, axis=2)
    return np.nonzero((distance < CUTOFF) & ~np.eye(len(pos), dtype=bool))


def main(name: str, folder: Path, minutes: float, force_weight: float, weight_decay: float):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    parts = read_parts(folder)
    peer = PEERS[name](parts["train"], json.loads((folder / "recipe.json").read_text(encoding="utf-8")))
    decay = peer.weight_decay or weight_decay
    best, curve, epochs = train(peer, parts, 60 * minutes, force_weight, decay)
    result = {
        "peer": name,
        "minutes": minutes,
        "force_weight": force_weight,
        "weight_decay": decay,
        "parameters": sum(weight.numel() for weight in peer.model.parameters()),
        "epochs": epochs,
        "curve": curve,
        "test": errors(peer, best, parts["test"]),
        "microseconds_per_atom": speed(peer, best, parts["test"]),
    }
    write_result(folder / file_name(name, minutes, force_weight, weight_decay), peer, result)


def read_parts(folder: Path) -> dict[str, list[Atoms]]:
    """Frames of the three parts, with their ``target``."""
    parts = {part: read(folder / f"{part}.extxyz", ":") for part in ("train", "val", "test")}
    subtract_composition(parts)
    return parts


def file_name(name: str, minutes: float, force_weight: float, weight_decay: float) -> str:
    return f"{name}-{minutes:g}-{force_weight:g}-{weight_decay:g}.json"


def write_result(file: Path, peer: Any, result: dict[str, Any]):
    packages = {package: version(package.replace("_", "-")) for package in (*peer.packages, "torch")}
    file.write_text(json.dumps(result | {"packages": packages}, indent=1), encoding="utf-8")
    print(json.dumps({key: result[key] for key in ("peer", "epochs", "test", "microseconds_per_atom")}))


def subtract_composition(parts: dict[str, list[Atoms]]):
    """Give each frame the ``target``: its energy minus a fit of the energy per atom of each element, in eV."""
    numbers = sorted({int(number) for atoms in parts["train"] for number in atoms.numbers})

    def counts(frames: Iterable[Atoms]) -> np.ndarray:
        return np.array([[np.count_nonzero(atoms.numbers == number) for number in numbers] for atoms in frames])

    energy = np.array([atoms.info["REF_energy"] for atoms in parts["train"]])
    fit = np.linalg.lstsq(counts(parts["train"]).astype(float), energy, rcond=None)[0]
    for frames in parts.values():
        for atoms, offset in zip(frames, counts(frames) @ fit, strict=True):
            atoms.info["target"] = float(atoms.info["REF_energy"] - offset)


def train(
    peer: Any, parts: dict[str, list[Atoms]], budget: float, force_weight: float, weight_decay: float
) -> tuple[nn.Module, list, float]:
    """Best model, errors on the validation set by processor time, and the number of epochs."""
    started, frames = time.process_time(), parts["train"]
    items = [peer.prepare(atoms) for atoms in frames]
    model = peer.model
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    optimizer = torch.optim.AdamW(model.parameters(), lr=peer.rate, weight_decay=weight_decay, amsgrad=True)
    best, least, curve, idle, steps = model, math.inf, [], 0.0, 0
    points, order = list(POINTS), []
    while points:
        share = (time.process_time() - started - idle) / budget
        if share >= points[0]:
            paused = time.process_time()
            points = [point for point in points if point > share]
            found = errors(peer, average.module, parts["val"])
            curve.append({"seconds": share * budget, "epochs": steps * peer.batch_size / len(frames), **found})
            print(json.dumps(curve[-1]), flush=True)
            loss = found["energy_mae"] / KCAL_PER_MOL + force_weight * found["force_mae"] / 1000
            if loss < least:
                best, least = deepcopy(average.module), loss
            idle += time.process_time() - paused
        if len(order) < peer.batch_size:
            order = torch.randperm(len(frames)).tolist()
        chosen, order = order[: peer.batch_size], order[peer.batch_size :]
        for group in optimizer.param_groups:
            group["lr"] = peer.rate * max(0.01, (1 + math.cos(math.pi * min(share, 1.0))) / 2)
        step(peer, model.train(), optimizer, items, frames, chosen, force_weight)
        average.update_parameters(model)
        steps += 1
    return best, curve, steps * peer.batch_size / len(frames)


def step(
    peer: Any,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    items: list,
    frames: list[Atoms],
    chosen: list[int],
    force_weight: float,
):
    energy, forces = peer.evaluate(model, peer.collate([items[index] for index in chosen]))
    target = torch.tensor([frames[index].info["target"] for index in chosen], dtype=energy.dtype)
    true = torch.from_numpy(np.concatenate([frames[index].arrays["REF_forces"] for index in chosen])).to(forces.dtype)
    loss = (energy - target).abs().mean() + force_weight * (forces - true).abs().mean()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 100.0)
    optimizer.step()


def errors(peer: Any, model: nn.Module, frames: list[Atoms], batch_size: int = 16) -> dict[str, float]:
    """Energy in kcal/mol per cluster and meV/atom, forces in meV/Å per component."""
    model.eval()
    off, of_force = [], []
    for start in range(0, len(frames), batch_size):
        part = frames[start : start + batch_size]
        energy, forces = peer.evaluate(model, peer.collate([peer.prepare(atoms) for atoms in part]))
        off.append(energy.detach().double().numpy() - [atoms.info["target"] for atoms in part])
        of_force.append(
            forces.detach().double().numpy() - np.concatenate([atoms.arrays["REF_forces"] for atoms in part])
        )
    energy_off, force_off = np.concatenate(off), 1000 * np.concatenate(of_force).ravel()
    per_atom = 1000 * energy_off / [len(atoms) for atoms in frames]
    return {
        "energy_mae": float(KCAL_PER_MOL * np.abs(energy_off).mean()),
        "energy_rmse": float(KCAL_PER_MOL * np.sqrt((energy_off**2).mean())),
        "energy_mae_mev_per_atom": float(np.abs(per_atom).mean()),
        "force_mae": float(np.abs(force_off).mean()),
        "force_rmse": float(np.sqrt((force_off**2).mean())),
    }


def speed(peer: Any, model: nn.Module, frames: list[Atoms], rounds: int = 3) -> float:
    """Processor time in microseconds per atom of energies and forces, from positions; least of some rounds."""
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        errors(peer, model, frames)
        seconds.append(time.process_time() - start)
    return 1e6 * min(seconds) / sum(len(atoms) for atoms in frames)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(float, sys.argv[3:]))
