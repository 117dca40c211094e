"""Neuroevolution potential for comparison with the models of :mod:`peers`: ``PYTHON peer_nep.py NEP FOLDER MINUTES``.

The potential is trained by TorchNEP's own program with its own loss, schedule and two stages, for as many epochs as the
processor time allows after three timed ones, and evaluated frame by frame with calorine's C++ calculator.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from peers import errors, file_name, read_parts, speed, write_result
from torch import Tensor, nn
from torchnep import train_nep

BOX = 60.0
"""Edge in Å of a cubic cell that keeps periodic images apart."""


class NEP:
    """Settings of NEP4: cutoffs of 6 and 5 Å, and otherwise the defaults of TorchNEP."""

    packages = ("torchnep", "calorine")

    def prepare(self, atoms: Atoms) -> Atoms:
        return Atoms(atoms.numbers, atoms.positions, cell=[BOX] * 3, pbc=True)

    def collate(self, items: Sequence[Atoms]) -> list[Atoms]:
        return list(items)

    def evaluate(self, model: nn.Module, inputs: list[Atoms]) -> tuple[Tensor, Tensor]:
        energy, forces = [], []
        for atoms in inputs:
            model.calculator.calculate(atoms, ["energy", "forces"])
            energy.append(model.calculator.results["energy"])
            forces.append(model.calculator.results["forces"])
        return torch.tensor(energy), torch.from_numpy(np.concatenate(forces))


class Potential(nn.Module):
    """A potential that TorchNEP wrote."""

    def __init__(self, file: Path):
        from calorine.calculators import CPUNEP

        super().__init__()
        self.calculator = CPUNEP(str(file))


def main(name: str, folder: Path, minutes: float, force_weight: float, weight_decay: float):
    torch.set_num_threads(1)
    parts = read_parts(folder)
    work = folder / "nep"
    work.mkdir(exist_ok=True)
    for part in ("train", "val"):
        write(work / f"{part}.xyz", parts[part])
    started = time.process_time()
    train(work, "probe", parts["train"], 3)
    per_epoch = (time.process_time() - started) / 3
    epochs = max(4, int((60 * minutes) / per_epoch))
    started = time.process_time()
    train(work, f"run-{minutes:g}", parts["train"], epochs)
    used = time.process_time() - started
    peer, model = NEP(), Potential(work / f"run-{minutes:g}" / "nep_best.txt")
    write_result(
        folder / file_name(name, minutes, force_weight, weight_decay),
        peer,
        {
            "peer": name,
            "minutes": minutes,
            "parameters": parameters(work / f"run-{minutes:g}" / "output.log"),
            "epochs": epochs,
            "curve": [{"seconds": used, "epochs": epochs, **errors(peer, model, parts["val"])}],
            "test": errors(peer, model, parts["test"]),
            "microseconds_per_atom": speed(peer, model, parts["test"]),
        },
    )


def write(file: Path, frames: list[Atoms]):
    """Frames in a box, with the energy minus the fit of the composition, for TorchNEP."""
    lines = []
    for atoms in frames:
        cell = f'Lattice="{BOX} 0 0 0 {BOX} 0 0 0 {BOX}"'
        lines += [
            str(len(atoms)),
            f"{cell} Properties=species:S:1:pos:R:3:forces:R:3 energy={atoms.info['target']:.9f}",
        ]
        values = np.hstack([atoms.positions, atoms.arrays["REF_forces"]])
        lines += [
            " ".join([symbol, *(f"{value:.8f}" for value in row)])
            for symbol, row in zip(atoms.symbols, values, strict=True)
        ]
    file.write_text("\n".join([*lines, ""]), encoding="utf-8")


def train(work: Path, name: str, frames: list[Atoms], epochs: int):
    symbols = sorted({symbol for atoms in frames for symbol in atoms.get_chemical_symbols()})
    settings = f"type {len(symbols)} {' '.join(symbols)}\ncutoff 6 5\nbatch 8\nepoch {epochs}\nstage2 1\n"
    (work / "nep.in").write_text(settings, encoding="utf-8")
    train_nep(
        str(work / "nep.in"),
        str(work / "train.xyz"),
        output_dir=str(work / name),
        device="cpu",
        valid_file=str(work / "val.xyz"),
        run_seed=0,
        prediction_interval=0,
        print_interval=1000,
    )


def parameters(log: Path) -> int:
    """Number of weights, as the program prints it."""
    words = log.read_text(encoding="utf-8").split()
    return int(words[words.index("parameters,") - 1])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(float, sys.argv[3:]))
