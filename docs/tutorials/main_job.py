"""Gallium clusters in, a trained DART out, a trajectory screened with it, in a loop of one's own.

Run with: python docs/tutorials/main_job.py --epochs 5 --out tutorial
"""

import argparse
from pathlib import Path

import torch
from ase import Atoms
from ase.io import write
from torch import Tensor, nn
from torch_geometric.data import Dataset
from torch_geometric.loader import DataLoader

from pyg_clusters.datasets import GalliumClusters, Split, group_split
from pyg_clusters.inference import Predictor
from pyg_clusters.models import DART
from pyg_clusters.units import KCAL_PER_MOL


# [load]
def load(root: Path | None) -> tuple[GalliumClusters, Split]:
    dataset = GalliumClusters(root)
    split = group_split(dataset.groups, fractions=(0.8, 0.1, 0.1), seed=0)
    print(
        f"{len(dataset)} clusters: {len(split.train)} to train, {len(split.val)} to validate, {len(split.test)} to test"
    )
    return dataset, split


# [train]
def train(dataset: Dataset, validation: Dataset, epochs: int) -> DART:
    model = DART()
    everything = whole(dataset)
    model.scale.fit(everything.z, everything.ptr, everything.y)
    model.domain.fit(everything.z, everything.ptr, everything.pos)

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    loader = DataLoader(dataset, batch_size=32, shuffle=True, generator=torch.Generator().manual_seed(0))
    for epoch in range(1, epochs + 1):
        for batch in loader:
            optimizer.zero_grad()
            energy = model(batch.z, batch.pos, batch.batch)  # [num_graphs] in eV
            loss = nn.functional.l1_loss(energy, batch.y)
            loss.backward()
            optimizer.step()
        schedule.step()
        error = (predict(model, validation) - whole(validation).y).abs().mean()
        print(f"epoch {epoch}: validation MAE {float(error) * KCAL_PER_MOL:.2f} kcal/mol")
    return model


# [evaluate]
def evaluate(model: DART, dataset: Dataset):
    error = (predict(model, dataset) - whole(dataset).y) * KCAL_PER_MOL
    mae, rmse = float(error.abs().mean()), float(error.square().mean().sqrt())
    print(f"test: MAE {mae:.2f}, RMSE {rmse:.2f} kcal/mol per cluster")


def predict(model: DART, dataset: Dataset) -> Tensor:
    """Energies ``[num_graphs]`` in eV."""
    clusters = whole(dataset)
    return Predictor(model)(clusters.z, clusters.pos, clusters.ptr).energy


def whole(dataset: Dataset):
    """A data set as one batch."""
    return next(iter(DataLoader(dataset, batch_size=len(dataset))))


# [screen]
def screen(model: DART, frames: Dataset, top: int, out: Path):
    energy = predict(model, frames)
    lowest = energy.argsort()[:top]
    candidates = []
    for number in lowest.tolist():
        frame = frames[number]
        info = {"frame": number, "pred_energy": float(energy[number])}
        candidates.append(Atoms(frame.z.numpy(), frame.pos.numpy(), info=info))
    write(out, candidates, format="extxyz")
    print(f"{len(frames)} frames between {float(energy.min()):.2f} and {float(energy.max()):.2f} eV")
    print(f"the {top} lowest are in {out}")


# [all]
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("tutorial"), help="folder for the results")
    parser.add_argument("--root", type=Path, help="folder for the processed data sets")
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)

    dataset, split = load(arguments.root)
    model = train(dataset[split.train], dataset[split.val], arguments.epochs)
    evaluate(model, dataset[split.test])
    trajectory = GalliumClusters(arguments.root, subset="md_57")
    screen(model, trajectory, top=20, out=arguments.out / "candidates.extxyz")


if __name__ == "__main__":
    main()
