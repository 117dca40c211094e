"""SmoothDART for several elements: ``python tests/benchmarks/elements.py errors`` and ``... cost``.

``errors`` generates minima and hot frames of clusters of six elements at random compositions (EMT), split by group, and
prints the errors (MAE / RMSE) on the test set and the processor time of training for a fit of the composition, for
AlloyDART (energies of the minima), and for SmoothDART (energies and forces) with several numbers of element channels.
The structures are kept in the folder: a second call resumes the generation.

``cost`` prints the processor time of energies, and of energies with forces, for 1, 2 and 6 elements in one run.
"""

import argparse
import logging
import resource
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from ase.data import atomic_numbers
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from pyg_clusters.datasets import ClusterDataset, Split
from pyg_clusters.geometry import ptr_to_batch
from pyg_clusters.models import AlloyDART, SmoothDART
from pyg_clusters.nn.output_scale import ReferenceFit
from pyg_clusters.options.structures import HotOptions, QuenchOptions
from pyg_clusters.structures import energy_and_forces
from pyg_clusters.structures.generate import generate_hot, generate_quench
from pyg_clusters.testing import random_clusters
from pyg_clusters.training import ClusterDataModule, EnergyTraining, ForceTraining
from pyg_clusters.units import KCAL_PER_MOL

ELEMENTS = ("Ni", "Cu", "Pd", "Ag", "Pt", "Au")
NUMBERS = tuple(atomic_numbers[symbol] for symbol in ELEMENTS)
SHELLS = {
    "radii": (3.4, 5.75),
    "descriptor_radii": (1.8, 2.0, 2.2, 2.4, 2.6, 2.8, 3.0, 3.3, 3.7, 4.2, 4.8, 5.4),
    "width": 1.0,
    "outermost_shell": False,
    "interaction_channels": (64, 32),
}


def processor_time() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def compositions(num: int, sizes: tuple[int, int], seed: int) -> list[str]:
    """Distinct formulas of clusters with uniformly distributed shares of the elements."""
    rng, formulas = np.random.default_rng(seed), {}
    while len(formulas) < num:
        counts = rng.multinomial(rng.integers(*sizes, endpoint=True), rng.dirichlet(np.ones(len(ELEMENTS))))
        formulas["".join(f"{symbol}{n}" for symbol, n in zip(ELEMENTS, counts, strict=True) if n)] = None
    return list(formulas)


def generated(folder: Path, minima: int, hot: int) -> ClusterDataset:
    files = [folder / "minima.extxyz", folder / "hot.extxyz"]
    generate_quench(
        QuenchOptions(formula=compositions(minima, (20, 40), 0), calculator="emt", count=minima, out=str(files[0]))
    )
    generate_hot(HotOptions(frames=[str(files[0])], calculator="emt", count=hot, out=str(files[1])))
    return ClusterDataset(folder, files, target="binding_energy", group="group", forces=True, minima=files[:1])


def trained(model: nn.Module, data: ClusterDataModule, epochs: int, forces: bool) -> tuple[nn.Module, float]:
    """Train a model, and return it with the processor time in seconds."""
    make = {
        "model": model,
        "optimizer": lambda parameters: torch.optim.Adam(parameters, lr=2e-3),
        "scheduler": lambda optimizer: CosineAnnealingLR(optimizer, epochs),
        "average_decay": 0.99,
    }
    module = ForceTraining(**make, force_weight=2.0) if forces else EnergyTraining(**make)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        inference_mode=False,
    )
    start = processor_time()
    trainer.fit(module, data)
    return module.evaluated_model.eval(), processor_time() - start


def errors(options: argparse.Namespace):
    dataset = generated(options.folder, options.minima, options.hot)
    data, of_minima = (ClusterDataModule(dataset, split="group", batch_size=16) for _ in range(2))
    split = data.split
    minima = Split(*(part[part < options.minima] for part in (split.train, split.val, split.test)))
    of_minima.split = minima
    hot = split.test[split.test >= options.minima]
    print(f"{split}, of these minima {minima}; {options.epochs} epochs")
    train, test = (data.batches[part.tolist()] for part in (minima.train, minima.test))

    fit = ReferenceFit()
    fit.add(train.z, train.ptr, train.y)
    of_element = fit.solution()
    shares = torch.tensor([of_element[number] for number in test.z.tolist()])
    report("fit of the composition", torch.zeros_like(test.y).index_add(0, test.batch, shares) - test.y)

    def smooth(channels: int) -> SmoothDART:
        settings = {**SHELLS, "degree": options.degree, "hidden_channels": 48}
        return SmoothDART(**settings, elements=NUMBERS, element_channels=channels)

    pl.seed_everything(0, verbose=False)
    model, seconds = trained(AlloyDART(NUMBERS, SHELLS["radii"]), of_minima, 4 * options.epochs, forces=False)
    with torch.no_grad():
        report("AlloyDART", model(test.z, test.pos, test.batch) - test.y, seconds=seconds)
    for channels in options.channels:
        pl.seed_everything(0, verbose=False)
        model, seconds = trained(smooth(channels), data, options.epochs, forces=True)
        with torch.no_grad():
            error = model(test.z, test.pos, test.batch) - test.y
        block = data.batches[hot.tolist()]
        _, forces = energy_and_forces(model, block.z, block.pos, block.batch)
        report(f"SmoothDART, {channels} channels", error, forces - block.force, seconds)


def report(name: str, energies: Tensor, forces: Tensor | None = None, seconds: float = 0.0):
    """Print the errors of energies ``[num_graphs]`` in eV and of forces ``[num_atoms, 3]`` in eV/Å."""
    error = energies * KCAL_PER_MOL
    text = f"{name:24} minima {error.abs().mean():6.2f} / {error.square().mean().sqrt():6.2f} kcal/mol"
    if forces is not None:
        text += f", forces {1000 * forces.abs().mean():6.1f} / {1000 * forces.square().mean().sqrt():6.1f} meV/Å"
    print(f"{text}, {seconds:.0f} s", flush=True)


def cost(options: argparse.Namespace):
    generator = torch.Generator().manual_seed(0)
    _, pos, ptr = random_clusters((52,) * 60, 29, generator)
    pos, batch = pos.float(), ptr_to_batch(ptr)
    many = {"descriptor_radii": (2.3, 2.45, 2.6, 2.75, 2.9, 3.05, 3.2, 3.35), "degree": 7, "hidden_channels": 96}
    for name, settings in {"degree 7": many, "degree 0": {**SHELLS, "degree": 0, "hidden_channels": 48}}.items():
        models, least = {}, {}
        for elements, channels in ((None, 1), (NUMBERS[1::4], 1), (NUMBERS, 2), (NUMBERS, 3)):
            present = torch.tensor(elements or NUMBERS[:1])
            z = present[torch.randint(present.numel(), pos.shape[:1], generator=generator)]
            label = "1 element" if elements is None else f"{len(elements)} elements, {channels} channels"
            models[label] = SmoothDART(**settings, elements=elements, element_channels=channels).eval(), z
        for _ in range(options.rounds):
            for label, (model, z) in models.items():
                start = processor_time()
                with torch.no_grad():
                    model(z, pos, batch)
                middle = processor_time()
                energy_and_forces(model, z, pos, batch)
                times = np.array([middle - start, processor_time() - middle])
                least[label] = np.minimum(least.get(label, np.inf), times)
        for label, times in least.items():
            energies, forces = times / batch.numel() * 1e6
            ratios = times / least["1 element"]
            print(
                f"{name}, {label:24} energies {energies:5.1f} µs an atom ({ratios[0]:.2f})  "
                f"with forces {forces:5.1f} ({ratios[1]:.2f})",
                flush=True,
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["errors", "cost"])
    parser.add_argument("--folder", type=Path, default=Path("runs/six_elements"))
    parser.add_argument("--minima", type=int, default=4000)
    parser.add_argument("--hot", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=20, help="of SmoothDART; AlloyDART has four times as many")
    parser.add_argument("--channels", type=int, nargs="+", default=[1, 2, 3, 5])
    parser.add_argument("--degree", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    options.folder.mkdir(parents=True, exist_ok=True)
    {"errors": errors, "cost": cost}[options.what](options)


if __name__ == "__main__":
    main()
