"""SmoothDART beside MACE, a public equivariant model, on the frames that ``gallium-forces`` was trained on.

MACE (Batatia et al., NeurIPS 2022) is trained by its own program with its own loss and schedule. ``README.md`` tells
how to install it apart; run this with the Python that has it, from the root of the checkout:

    python tests/benchmarks/beside_mace.py export FOLDER      # the split of smooth_dart_gallium.yaml as extended XYZ
    python tests/benchmarks/beside_mace.py train FOLDER       # on one thread; resumes after the last epoch
    python tests/benchmarks/beside_mace.py evaluate FOLDER    # errors and speed of both
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from mace.data import AtomicData, KeySpecification, config_from_atoms
from mace.tools import AtomicNumberTable, torch_geometric
from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_clusters.datasets import GalliumClusters
from pyg_clusters.datasets.batches import ClusterBatches
from pyg_clusters.frames import write_extxyz
from pyg_clusters.models import SmoothDART, load_model
from pyg_clusters.structures import energy_and_forces
from pyg_clusters.units import KCAL_PER_MOL, MEV

NAME = "mace"
EPOCHS = 12
SETTINGS = {
    "hidden_irreps": "32x0e + 32x1o",
    "max_ell": 2,
    "correlation": 2,
    "r_max": 5.0,
    "num_interactions": 2,
    "default_dtype": "float32",
    "E0s": "average",
    "batch_size": 8,
    "valid_batch_size": 16,
    "lr": 0.01,
    "scheduler": "ExponentialLR",
    "lr_scheduler_gamma": 0.9,
    "ema_decay": 0.995,
    "energy_weight": 1,
    "forces_weight": 100,
    "start_swa": 2,
    "swa_energy_weight": 1000,
    "swa_forces_weight": 100,
    "swa_lr": 1e-3,
    "eval_interval": 1,
    "error_table": "TotalMAE",
    "plot": False,
    "device": "cpu",
    "seed": 0,
}
"""Options of ``mace_run_train``; the weights of the two stages are its own."""
SIZE = 52
CLUSTERS = 64
ROUNDS = 5
BATCH = 16

Evaluation = tuple[Tensor, Tensor]
"""Energies ``[num_graphs]`` in eV and forces ``[num_atoms, 3]`` in eV/Å."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["export", "train", "evaluate"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the training")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.step == "train":
        train(options.folder, options.epochs)
    else:
        {"export": export, "evaluate": evaluate}[options.step](options.folder)


def export(folder: Path):
    """Writes the three parts of the split, with ``REF_energy`` (eV) and ``REF_forces`` (eV/Å)."""
    dataset = GalliumClusters(subset="forces_minima")
    split = dataset.group_split()
    for name, part in (("train", split.train), ("val", split.val), ("test", split.test)):
        write_extxyz(folder / f"{name}.extxyz", (atoms_of(dataset[number]) for number in part.tolist()))
        print(f"{folder / name}.extxyz: {part.numel()} frames")


def atoms_of(cluster: Data) -> Atoms:
    atoms = Atoms(numbers=cluster.z.numpy(), positions=cluster.pos.numpy().astype(np.float64))
    atoms.info["REF_energy"] = float(cluster.y)
    atoms.arrays["REF_forces"] = cluster.force.numpy().astype(np.float64)
    return atoms


def train(folder: Path, epochs: int):
    """Runs ``mace_run_train`` on one thread, from its last checkpoint if there is one."""
    arguments = [f"--{key}={value}" for key, value in (SETTINGS | {"max_num_epochs": epochs}).items()]
    files = {"train_file": "train.extxyz", "valid_file": "val.extxyz", "work_dir": ".", "model_dir": "."}
    arguments += [f"--{key}={value}" for key, value in files.items()]
    program = Path(sys.executable).with_name("mace_run_train")
    subprocess.run(
        [program, f"--name={NAME}", *arguments, "--ema", "--amsgrad", "--swa", "--restart_latest"],
        check=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    minutes = (used.ru_utime + used.ru_stime) / 60
    with (folder / "minutes.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"minutes": minutes}) + "\n")
    print(f"{minutes:.0f} minutes of processor time in this call")


def evaluate(folder: Path):
    """Prints the errors of both on the test part, by kind, and how many clusters a second each does."""
    dataset = GalliumClusters(subset="forces_minima")
    test = dataset.group_split().test
    smooth = load_model("gallium-forces").eval()
    mace = load(folder)
    models = {"SmoothDART": partial(by_smooth_dart, smooth), "MACE": partial(by_mace, mace)}
    for name, model in (("SmoothDART", smooth), ("MACE", mace)):
        print(f"{name}: {sum(weight.numel() for weight in model.parameters()):,} parameters")
    for kind, part in (("hot frames", test[is_hot(dataset)[test]]), ("minima", test[~is_hot(dataset)[test]])):
        print(f"{part.numel()} test {kind}")
        for name, model in models.items():
            print(f"  {name:<12}{errors(model, dataset, part)}")
    print_speed(dataset, models)
    print_learning_curve(folder)


def is_hot(dataset: GalliumClusters) -> Tensor:
    return dataset.file_of_cluster == 0


def load(folder: Path) -> nn.Module:
    """The model of the second stage of the training."""
    path = folder / f"{NAME}_stagetwo.model"
    if not path.exists():
        raise SystemExit(f"{path} is not there; run the step train to its end")
    return torch.load(path, map_location="cpu", weights_only=False).eval()


def by_smooth_dart(model: SmoothDART, batch: Data, forces: bool = True) -> Evaluation:
    if forces:
        return energy_and_forces(model, batch.z, batch.pos, batch.batch)
    with torch.no_grad():
        return model(batch.z, batch.pos, batch.batch), batch.pos


def by_mace(model: nn.Module, batch: Data, forces: bool = True) -> Evaluation:
    graphs = batch.get("graphs") or mace_graphs(model, batch)
    found = model(graphs.to_dict(), compute_force=forces)
    return found["energy"].detach(), found["forces"].detach() if forces else batch.pos


def mace_graphs(model: nn.Module, batch: Data) -> torch_geometric.batch.Batch:
    """MACE's graphs of a batch of clusters."""
    table = AtomicNumberTable([31])
    positions = batch.pos.double().split(batch.ptr.diff().tolist())
    frames = [Atoms(["Ga"] * len(one), one.numpy()) for one in positions]
    keys = KeySpecification()
    graphs = [AtomicData.from_config(config_from_atoms(one, keys), table, float(model.r_max)) for one in frames]
    return torch_geometric.batch.Batch.from_data_list(graphs)


def errors(model: Callable[[Data], Evaluation], dataset: GalliumClusters, part: Tensor) -> str:
    off, forces_off = [], []
    for chosen in part.split(BATCH):
        batch = ClusterBatches(dataset)[chosen.tolist()]
        energy, forces = model(batch)
        off.append((energy - batch.y) * KCAL_PER_MOL)
        forces_off.append((forces - batch.force).flatten() * MEV)
    energy, force = torch.cat(off), torch.cat(forces_off)
    return (
        f"energy MAE {energy.abs().mean():5.2f}, RMSE {energy.square().mean().sqrt():5.2f} kcal/mol per cluster; "
        f"forces MAE {force.abs().mean():5.1f}, RMSE {force.square().mean().sqrt():5.1f} meV/Å"
    )


def print_speed(dataset: GalliumClusters, models: dict[str, Callable[..., Evaluation]]):
    """Clusters a second; MACE's graphs are made beforehand, SmoothDART has positions alone."""
    chosen = (dataset.sizes == SIZE).nonzero().flatten()[:CLUSTERS]
    batches = [ClusterBatches(dataset)[part.tolist()] for part in chosen.split(BATCH)]
    for batch in batches:
        batch.graphs = mace_graphs(models["MACE"].args[0], batch)
    print(f"{chosen.numel()} clusters of {SIZE} atoms, one thread, least of {ROUNDS} rounds")
    for forces, what in ((False, "energies"), (True, "energies and forces")):
        least = dict.fromkeys(models, float("inf"))
        for _ in range(ROUNDS):
            for name, model in models.items():
                start = time.process_time()
                for batch in batches:
                    model(batch, forces=forces)
                least[name] = min(least[name], time.process_time() - start)
        rates = {name: chosen.numel() / seconds for name, seconds in least.items()}
        shown = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
        print(f"  {what} a second: {shown}, ratio {rates['SmoothDART'] / rates['MACE']:.1f}")


def print_learning_curve(folder: Path):
    """Errors of MACE on the validation part (minima and hot frames together) after each epoch."""
    for line in (folder / "results" / f"{NAME}_run-0_train.txt").read_text(encoding="utf-8").splitlines():
        found = json.loads(line)
        if found["mode"] == "eval" and found["epoch"] is not None:
            energy, force = found["mae_e"] * KCAL_PER_MOL, found["mae_f"] * MEV
            print(f"validation, epoch {found['epoch']}: {energy:.2f} kcal/mol, {force:.1f} meV/Å")


if __name__ == "__main__":
    main()
