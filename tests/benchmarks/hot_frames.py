"""Reference calculations that start from frames of hot dynamics: ``python tests/benchmarks/hot_frames.py STEP FOLDER``.

``trajectory`` generates 400 frames of Cu19Au19 at 900 K and the minimum of each (EMT), in ``md.extxyz`` and
``quenched.extxyz``. ``relax`` relaxes all frames with the model for each maximum number of steps (0: energies of the
frames), unperturbed (copy 0) or perturbed by 0.1 Å (copies 1, 2, ...). ``reference`` relaxes candidates with the
reference calculator until a number of gradients is spent, for each strategy of choosing and starting them. ``show``
prints the tables of one or several folders and draws the figure. All results are kept in the folder: an interrupted
step can be run again.

    python tests/benchmarks/hot_frames.py relax FOLDER --model gallium-forces --frames gallium_md_46
    python tests/benchmarks/hot_frames.py reference FOLDER --model gallium-forces --frames gallium_md_46 \
        --quenched gallium_md_46_quenched --ranker gallium-screening --calculator gap:FILE
    python tests/benchmarks/hot_frames.py show FOLDER --figure hot_frames.png
"""

import argparse
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.md.langevin import Langevin
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from pyg_clusters.analysis.plots import legend, save_figure, tidy
from pyg_clusters.frames import AtomsFrame, read_atoms, write_extxyz
from pyg_clusters.inference import Predictor
from pyg_clusters.models import load_model
from pyg_clusters.screening.candidates import relax_atoms
from pyg_clusters.screening.scores import WINDOW, isomers_by_energy, recall_curve
from pyg_clusters.structures import named_calculator
from pyg_clusters.structures.duplicates import merge_groups, representatives
from pyg_clusters.structures.quench import random_compact
from pyg_clusters.structures.relax_frames import local_minimum
from pyg_clusters.structures.relaxation import LEFT_RANGE
from pyg_clusters.units import KCAL_PER_MOL

FMAX = 0.01
"""Largest force in eV/Å after a relaxation with the model."""
REFERENCE_FMAX = 0.02
"""Largest force in eV/Å after a relaxation with the reference."""
FULL = 1000
"""Maximum number of steps of a complete relaxation."""
NOISE = 0.1
"""Standard deviation in Å of the perturbation of the copies."""
WANTED, AMONG = 0.05, 0.2
"""Recall: how many of this share of the frames, the lowest by truth, are among that share, the lowest by prediction."""
CHOICES = {
    "random": "random, from the frame",
    "raw": "ranked unrelaxed, from the frame",
    "relaxed, raw start": "ranked relaxed, from the frame",
    "relaxed": "ranked relaxed, from the relaxed structure",
    "copies": "lowest of the copies, from the relaxed structure",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["trajectory", "relax", "reference", "show"])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--model", default="copper-gold", help="model with forces")
    parser.add_argument("--frames", help="file of the frames, or its name; md.extxyz of the folder if not given")
    parser.add_argument("--quenched", help="file of their minima, in the same order; else quenched.extxyz")
    parser.add_argument("--num", type=int, help="use so many frames, the first")
    parser.add_argument("--truth", default="quench_binding_energy", help="energy of the minimum of a frame")
    parser.add_argument("--ranker", help="model that ranks the frames as they are; the same if not given")
    parser.add_argument("--calculator", default="emt", help="reference")
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 5, 10, 20, 40, 80, FULL])
    parser.add_argument("--copies", type=int, nargs="+", default=[0])
    parser.add_argument("--choices", nargs="+", choices=CHOICES, default=list(CHOICES))
    parser.add_argument("--calls", type=int, default=2000, help="gradients of the reference for each choice")
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.step == "show":
        show(options.folders, options.figure)
        return
    (folder,) = options.folders
    folder.mkdir(parents=True, exist_ok=True)
    options.frames = options.frames or str(folder / "md.extxyz")
    options.quenched = options.quenched or str(folder / "quenched.extxyz")
    {"trajectory": trajectory, "relax": relax, "reference": reference}[options.step](folder, options)


def trajectory(folder: Path, options: argparse.Namespace, num_frames: int = 400, temperature: float = 900.0):
    """Frames every 400 fs of a Langevin run, after 4 ps, and the minimum of each."""
    rng = np.random.default_rng(0)
    calculator = named_calculator("emt", ["Cu", "Au"])
    atoms = local_minimum(random_compact(np.repeat([29, 79], 19), rng), calculator).atoms
    atoms.calc = calculator
    atoms.set_momenta(
        np.sqrt(atoms.get_masses() * units.kB * temperature)[:, None] * rng.standard_normal((len(atoms), 3))
    )
    heat_bath = {"temperature_K": temperature, "friction": 0.02 / units.fs, "fixcm": False}
    dynamics = Langevin(atoms, 4 * units.fs, rng=rng, **heat_bath)
    dynamics.run(1000)
    frames, minima = [], []
    for _ in range(num_frames):
        dynamics.run(100)
        frames.append(Atoms(atoms.numbers, atoms.positions - atoms.positions.mean(axis=0)))
    for frame in frames:
        found = local_minimum(frame, named_calculator("emt", ["Cu", "Au"]), fmax=FMAX)
        minima.append(found.atoms)
        frame.info = {options.truth: found.energy}
    write_extxyz(folder / "md.extxyz", frames)
    write_extxyz(folder / "quenched.extxyz", minima)


def read(file: str, num: int | None) -> list[Atoms]:
    return [frame.atoms for frame in islice(read_atoms([file]), num) if isinstance(frame, AtomsFrame)]


def relax(folder: Path, options: argparse.Namespace):
    """Relax all frames, or a perturbed copy of each, for each maximum number of steps."""
    predictor = Predictor(load_model(options.model))
    frames = read(options.frames, options.num)
    truth = np.array([frame.info[options.truth] for frame in frames])
    np.savez(folder / "truth.npz", truth=truth, numbers=frames[0].numbers)
    for copy in options.copies:
        rng = np.random.default_rng(copy)
        noise = [NOISE * rng.standard_normal(frame.positions.shape) if copy else 0.0 for frame in frames]
        starts = [Atoms(frame.numbers, frame.positions + moves) for frame, moves in zip(frames, noise, strict=True)]
        for steps in options.steps:
            file = folder / f"relaxed-{steps}-{copy}.npz"
            if file.exists():
                continue
            energy, pos, seconds = relaxed(starts, predictor, steps)
            np.savez(file, energy=energy, pos=pos, seconds=seconds)
            print(f"{file}: {seconds:.1f} s of processor time", flush=True)


def relaxed(starts: list[Atoms], predictor: Predictor, steps: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Energies in eV (infinite outside what the model was trained on), positions, and seconds of processor time."""
    start = time.process_time()
    if not steps:
        energy, minima = predictor(starts).energy.double().numpy(), starts
    else:
        minima = relax_atoms(starts, predictor, FMAX, steps)
        energy = np.array([np.inf if LEFT_RANGE in atoms.info else atoms.info["model_energy"] for atoms in minima])
    return energy, np.array([atoms.positions for atoms in minima]), time.process_time() - start


@dataclass
class Relaxations:
    """Relaxations of all frames with the model.

    Attributes:
        steps: Maximum number of steps.
        copies: Indices of the copies; the lowest of each frame counts.
        energy: Energies ``[num_frames]`` in eV.
        pos: Positions ``[num_frames, num_atoms, 3]`` in Å.
        seconds: Processor time.
    """

    steps: int
    copies: tuple[int, ...]
    energy: np.ndarray
    pos: np.ndarray
    seconds: float

    @classmethod
    def load(cls, folder: Path, steps: int, copies: Iterable[int]) -> "Relaxations":
        copies = tuple(copies)
        runs = [np.load(folder / f"relaxed-{steps}-{copy}.npz") for copy in copies]
        energy = np.array([run["energy"] for run in runs])
        lowest = energy.argmin(axis=0)
        frames = np.arange(energy.shape[1])
        pos = np.array([run["pos"] for run in runs])[lowest, frames]
        return cls(steps, copies, energy[lowest, frames], pos, float(sum(run["seconds"] for run in runs)))


def saved(folder: Path) -> list[Relaxations]:
    """All relaxations in a folder; of perturbed copies all of them together, and all with the frames themselves."""
    keys = [tuple(map(int, file.stem.split("-")[1:])) for file in folder.glob("relaxed-*-*.npz")]
    result = []
    for steps in sorted({steps for steps, _ in keys}):
        copies = sorted(copy for each, copy in keys if each == steps)
        sets = [[copy] for copy in copies if copy == 0] + [copies[:number] for number in range(2, len(copies) + 1)]
        result += [Relaxations.load(folder, steps, copies) for copies in sets]
    return result


def reference(folder: Path, options: argparse.Namespace):
    """Relax candidates with the reference, until the gradients of each choice are spent."""
    frames = read(options.frames, options.num)
    calculator = named_calculator(options.calculator, set(frames[0].get_chemical_symbols()))
    lowest = read(options.quenched, options.num)[int(np.argmin(np.load(folder / "truth.npz")["truth"]))]
    lowest_known = local_minimum(lowest, calculator, fmax=REFERENCE_FMAX).energy
    for choice in options.choices:
        file = folder / f"reference-{choice.replace(' ', '_')}.npz"
        order, pos = candidates(choice, folder, frames, options)
        energy, calls, end, used = [], [], [], []
        if file.exists():
            before = np.load(file)
            energy, calls, end = (list(before[name]) for name in ("energy", "calls", "pos"))
        started = time.process_time()
        for index in order[len(energy) :]:
            if sum(calls) >= options.calls:
                break
            found = local_minimum(Atoms(frames[0].numbers, pos[index]), calculator, fmax=REFERENCE_FMAX)
            energy.append(found.energy if found.converged else np.inf)
            calls.append(found.steps)
            end.append(found.atoms.positions)
            used.append(time.process_time() - started)
            np.savez(file, energy=energy, calls=calls, pos=end, lowest=lowest_known, name=options.calculator)
        rate = f"{used[-1] / len(used):.2f} s of processor time each" if used else "none now"
        print(f"{file}: {len(energy)} candidates, {sum(calls)} gradients, {rate}", flush=True)


def candidates(
    choice: str, folder: Path, frames: list[Atoms], options: argparse.Namespace
) -> tuple[np.ndarray, np.ndarray]:
    """Order of the candidates, and the positions in Å that each frame would start from."""
    raw = np.array([frame.positions for frame in frames])
    if choice == "random":
        return np.random.default_rng(0).permutation(len(frames)), raw
    if choice == "raw":
        energy = Predictor(load_model(options.ranker or options.model))(frames).energy.numpy()
        return np.argsort(energy, kind="stable"), raw
    copies = [run.copies for run in saved(folder) if run.steps == FULL]
    run = Relaxations.load(folder, FULL, max(copies, key=len) if choice == "copies" else [0])
    numbers = frames[0].numbers
    ptr = len(numbers) * np.arange(len(frames) + 1)
    kind = representatives(np.tile(numbers, len(frames)), run.pos.reshape(-1, 3), ptr, energy=run.energy)
    order = np.argsort(run.energy, kind="stable")
    return order[kind[order] == order], raw if choice == "relaxed, raw start" else run.pos


def show(folders: list[Path], path: Path | None):
    """Tables of all folders, and the figure."""
    figure = Figure(figsize=(8.4, 3.6 * len(folders)), layout="constrained")
    for folder, (left, right) in zip(folders, figure.subplots(len(folders), 2, squeeze=False), strict=True):
        known = np.load(folder / "truth.npz")
        name, truth = Atoms(known["numbers"]).get_chemical_formula(), known["truth"]
        print(f"\n## {name}\n")
        wanted, among = round(WANTED * len(truth)), round(AMONG * len(truth))
        tidy(left, f"processor time / s per frame ({name})", f"lowest {wanted}, found in {among} of {len(truth)}")
        tidy(right, f"gradients of the reference ({name})", f"isomers within {WINDOW} eV of the lowest")
        show_recall(saved(folder), truth, left)
        show_isomers(folder, known["numbers"], right)
        left.set_xscale("log")
        left.set_ylim(0, wanted + 1)
        legend(left, loc="lower right")
        legend(right, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    if path is not None:
        save_figure(figure, path)


def show_recall(runs: list[Relaxations], truth: np.ndarray, axes) -> None:
    wanted = round(WANTED * len(truth))
    print(f"| steps | relaxed | processor time (ms per frame) | Spearman | of the lowest {wanted} |")
    print("|--:|---|--:|--:|--:|")
    points: dict[str, list[tuple[float, float]]] = {}
    for run in runs:
        recall = wanted * recall_curve(run.energy, truth, wanted)[round(AMONG * len(truth)) - 1]
        finite = np.isfinite(run.energy)
        correlation = spearmanr(run.energy[finite], truth[finite]).statistic
        seconds = run.seconds / len(truth)
        kind = "the frame" if run.copies == (0,) else f"lowest of {len(run.copies)}"
        points.setdefault(kind, []).append((seconds, recall))
        print(f"| {run.steps} | {kind} | {1000 * seconds:.1f} | {correlation:.2f} | {recall:.0f} |")
    for kind, values in points.items():
        axes.plot(*np.transpose(values), marker="o", markersize=4, linewidth=1.5, label=kind)


def show_isomers(folder: Path, numbers: np.ndarray, axes) -> None:
    runs = {choice: folder / f"reference-{choice.replace(' ', '_')}.npz" for choice in CHOICES}
    found = {choice: np.load(file) for choice, file in runs.items() if file.exists()}
    if not found:
        return
    energy = np.concatenate([run["energy"] for run in found.values()])
    isomer = isomers_of(numbers, np.concatenate([run["pos"] for run in found.values()]), energy)
    lowest = float(next(iter(found.values()))["lowest"])
    print(
        "\n| candidates | relaxed by the reference | gradients | of one | isomers within 0.5 eV | after half | lowest "
        "(kcal/mol above the lowest quench) |\n|---|--:|--:|--:|--:|--:|--:|"
    )
    first = 0
    for choice, run in found.items():
        own = slice(first, first + len(run["energy"]))
        first = own.stop
        calls = np.cumsum(run["calls"])
        count = low_isomers(run["energy"], isomer[own], lowest)
        half = count[max(0, np.searchsorted(calls, calls[-1] / 2, side="right") - 1)]
        best = (run["energy"].min() - lowest) * KCAL_PER_MOL
        values = f"{len(calls)} | {calls[-1]} | {run['calls'].mean():.0f} | {count[-1]} | {half} | {best:+.1f}"
        print(f"| {CHOICES[choice]} | {values} |")
        axes.step([0, *calls], [0, *count], where="post", linewidth=1.5, label=CHOICES[choice])


def isomers_of(numbers: np.ndarray, pos: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """Isomer of each structure; structures of one isomer have energies within 1 meV, or are copies."""
    ptr = len(numbers) * np.arange(len(energy) + 1)
    structure = representatives(np.tile(numbers, len(energy)), pos.reshape(-1, 3), ptr, energy=energy)
    return merge_groups(isomers_by_energy(energy), structure)


def low_isomers(energy: np.ndarray, isomer: np.ndarray, lowest: float) -> np.ndarray:
    """Number of distinct isomers within :data:`WINDOW` of an energy after 1, 2, ... candidates."""
    seen: set[int] = set()
    counts = []
    for kind, low in zip(isomer.tolist(), energy <= lowest + WINDOW, strict=True):
        if low:
            seen.add(kind)
        counts.append(len(seen))
    return np.array(counts)


if __name__ == "__main__":
    main()
