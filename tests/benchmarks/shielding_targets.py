"""Further targets of ShieldingDART in addition to the isotropic shieldings of sodium.

    OMP_NUM_THREADS=1 python tests/benchmarks/shielding_targets.py --target tensor
    OMP_NUM_THREADS=1 python tests/benchmarks/shielding_targets.py --target none --local

For each seed, the script trains on five folds of the random clusters of 14 to 22 atoms, with the squared error of the
shieldings plus that of the further target: the anisotropic part of the shielding tensor, from sums of r̂r̂ - 1/3 over
pairs of atoms; its largest and smallest eigenvalue; or the populations of 2S, 2P, 3S, 3P and the d functions. It prints
the RMSE over the five folds and the Wasserstein distance of each seed, and the RMSE of the same networks on larger
clusters, in ppm.
"""

import argparse
import time
import warnings

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from pyg_clusters.datasets import SodiumShielding, UnrelaxedOnly, fold_split
from pyg_clusters.metrics import shielding_metrics
from pyg_clusters.models import ShieldingDART

WEIGHT: float = 0.3
"""Weight of the further target in the loss."""

EPOCHS, BATCH_SIZE = 40, 8


class Network(ShieldingDART):
    """ShieldingDART that also predicts a further target of each atom."""

    def __init__(self, target: str, **kwargs):
        super().__init__(**kwargs)
        self.target, width = target, self.hidden_channels
        if target == "tensor":
            self.left, self.right = nn.Linear(width, 16 * 6), nn.Linear(width, 16)
        elif target != "none":
            self.head = nn.Sequential(
                nn.Linear(width, 64), nn.SiLU(), nn.Linear(64, {"eigenvalues": 2, "populations": 6}[target])
            )

    def read_out(self, x: Tensor, z: Tensor | None) -> Tensor:
        self.features = x
        return super().read_out(x, z)

    def further(self, data: Data) -> Tensor:
        """The further target ``[num_atoms, num_values]``, standardised, after a call."""
        if self.target != "tensor":
            return self.head(self.features)
        i, j = torch.triu_indices(data.num_nodes, data.num_nodes, 1)
        same = data.batch[i] == data.batch[j]
        i, j = torch.cat([i[same], j[same]]), torch.cat([j[same], i[same]])
        vector = data.pos[j] - data.pos[i]
        distance = vector.norm(dim=1, keepdim=True)
        places, widths = torch.tensor([[3.2, 3.8, 4.6, 5.6, 6.8, 8.2], [0.5, 0.6, 0.8, 1.0, 1.2, 1.5]])
        basis = torch.exp(-(((distance - places) / widths) ** 2))
        products = (self.left(self.features).view(-1, 6, 16)[i] * self.right(self.features)[j][:, None]).sum(2)
        unit = vector / distance
        part = (products * basis).sum(1)[:, None, None] * (unit[:, :, None] * unit[:, None] - torch.eye(3) / 3)
        return torch.zeros(data.num_nodes, 9).index_add(0, i, part.flatten(1))


def further_labels(data: Data, target: str) -> Tensor:
    """Values of a further target in ppm or electrons, ``[num_atoms, num_values]``."""
    if target == "populations":
        p = data.populations
        shells = p[:, 5], p[:, 6:9].sum(1), p[:, 9], p[:, 10:13].sum(1), p[:, 13:].sum(1), p.sum(1)
        return torch.stack(shells, 1)
    tensor = data.tensor.view(-1, 3, 3)
    tensor = (tensor + tensor.transpose(1, 2)) / 2
    isotropic = torch.diagonal(tensor, dim1=1, dim2=2).mean(1)
    anisotropic = tensor - isotropic[:, None, None] * torch.eye(3)
    return anisotropic.flatten(1) if target == "tensor" else torch.linalg.eigvalsh(anisotropic)[:, [2, 0]]


def predicted(target: str, parts: list[list[Data]], seed: int, noise: float, **kwargs) -> list[Tensor]:
    """Shieldings of test sets at the epoch of lowest validation error; ``parts`` are train, validation and tests."""
    torch.manual_seed(seed)
    model = Network(target, **kwargs)
    train, validation, *tests = map(Batch.from_data_list, parts)
    model.scale.fit(train.z, train.ptr, train.y)
    spread, mean, scale = train.y.std(), torch.zeros(1), torch.ones(1)
    if target != "none":
        labels = further_labels(train, target)
        mean, scale = (torch.zeros(1), labels.std()) if target == "tensor" else (labels.mean(0), labels.std(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    lowest, best = float("inf"), []
    for _ in range(EPOCHS):
        model.train()
        for data in DataLoader(parts[0], BATCH_SIZE, shuffle=True):
            data.pos = data.pos + noise * torch.randn_like(data.pos)
            loss = ((model(data.z, data.pos, data.batch) - data.y) / spread).square().mean()
            if target != "none":
                error = (model.further(data) - (further_labels(data, target) - mean) / scale).square().mean()
                loss = loss + (3 if target == "tensor" else 1) * WEIGHT * error
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        scheduler.step()
        model.eval()
        with torch.no_grad():
            error = float((model(validation.z, validation.pos, validation.batch) - validation.y).square().mean())
            if error < lowest:
                lowest, best = error, [model(test.z, test.pos, test.batch) for test in tests]
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=("none", "tensor", "eigenvalues", "populations"), default="none")
    parser.add_argument("--local", action="store_true", help="see atoms within 4.5 Å only, with more noise")
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    shape = {"radii": (4.5,), "outermost_shell": False} if args.local else {"radii": (4.5, 7.7)}
    begin, dataset = time.process_time(), SodiumShielding(pre_filter=UnrelaxedOnly())
    large = list(SodiumShielding(subset="large", pre_filter=UnrelaxedOnly()))
    truth = torch.cat([cluster.y for cluster in large])
    sizes = torch.cat([torch.full_like(cluster.z, cluster.num_nodes) for cluster in large])
    errors: dict[int, list[float]] = {}
    for seed in range(args.seeds):
        pairs = []
        for fold in range(5):
            split = fold_split(dataset.groups, folds=5, fold=fold)
            parts = [[dataset[int(i)] for i in part] for part in (split.train, split.val, split.test)]
            of_test, of_large = predicted(args.target, [*parts, large], seed, 0.2 if args.local else 0.05, **shape)
            pairs.append((of_test, torch.cat([cluster.y for cluster in parts[2]])))
            for size in sizes.unique().tolist():
                deviation = (of_large - truth)[sizes == size]
                errors.setdefault(size, []).append(float(deviation.square().mean().sqrt()))
        metrics = shielding_metrics(*(torch.cat(values).numpy() for values in zip(*pairs, strict=True)))
        print(f"seed {seed}: RMSE {metrics['rmse_ppm']:.1f}, Wasserstein distance {metrics['wasserstein_ppm']:.1f}")
    print(", ".join(f"Na{size} {np.mean(values):.1f}" for size, values in errors.items()), "ppm on larger clusters")
    print(f"{time.process_time() - begin:.0f} s")


if __name__ == "__main__":
    main()
