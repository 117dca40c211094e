"""SmoothDART compared with models of other libraries: ``python tests/benchmarks/beside_peers.py STEP FOLDER``.

    beside_peers.py install FOLDER                        # an environment for each peer in FOLDER/environments
    beside_peers.py export FOLDER --data silver.xyz.xz    # train, val and test.extxyz, the same for all, and a recipe
    beside_peers.py train FOLDER --minutes 15             # each peer on one thread, for this processor time
    beside_peers.py show FOLDER --figure peers.png        # table and figure of all results in the folder

``--data`` takes any files of frames with energies and forces (split at random with copies together), or ``copper-gold``
or ``gallium``: the shipped sets with their own split. :mod:`peers` describes the training.
"""

import argparse
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import yaml
from ase import Atoms
from matplotlib.figure import Figure
from peers import file_name
from torch_geometric.data import Data

from pyg_clusters.analysis.plots import SHELL_COLORS, save_figure, tidy
from pyg_clusters.datasets import ClusterDataset, CopperGoldClusters, GalliumClusters
from pyg_clusters.datasets.training_data import TrainingData
from pyg_clusters.frames import write_extxyz
from pyg_clusters.options.training import NewRecipeOptions
from pyg_clusters.shipped import shipped_recipe
from pyg_clusters.training.new_recipe import new_recipe

ENVIRONMENTS = {
    "MACE": "mace-torch==0.3.16 e3nn==0.4.4 matscipy opt-einsum opt-einsum-fx torch-ema prettytable wcwidth "
    "configargparse lmdb orjson GitPython gitdb smmap python-hostlist",
    "PaiNN": "schnetpack==2.1.1 dirsync fasteners hydra-core hydra-colorlog colorlog omegaconf tensorboardX matscipy "
    "antlr4-python3-runtime==4.9.3 torch-ema progressbar2",
    "NEP": "torchnep==1.0.7 calorine",
}
"""What pip installs for each peer besides the packages of this environment (torch, numpy, ASE); its own come first."""
PEERS = ["SmoothDART", "HDNN", "MACE", "PaiNN", "NEP"]
SHIPPED = {
    "copper-gold": (CopperGoldClusters, "smooth-dart-copper-gold"),
    "gallium": (GalliumClusters, "smooth-dart-gallium"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["install", "export", "train", "show"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", help="of export")
    parser.add_argument("--target", default="energy", help="name of the energy in files of your own")
    parser.add_argument("--peers", nargs="+", default=PEERS)
    parser.add_argument("--minutes", type=float, default=15, help="of processor time: 15, 60, 180")
    parser.add_argument("--force-weight", type=float, default=2.0, help="weight of the loss of the forces, in Å")
    parser.add_argument("--weight-decay", type=float, default=0.0)
    parser.add_argument("--environments", type=Path, help="FOLDER/environments if not given")
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    options.environments = options.environments or options.folder / "environments"
    options.folder.mkdir(parents=True, exist_ok=True)
    {"install": install, "export": export, "train": train, "show": show}[options.step](options)


def install(options: argparse.Namespace):
    """Create an environment for each peer that needs one, with access to the packages of this environment."""
    for peer in options.peers:
        if peer not in ENVIRONMENTS:
            continue
        folder = options.environments / peer
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        own, ours = (sysconfig.get_path("purelib", vars=values) for values in ({"base": str(folder)}, None))
        Path(own, "zz_shared.pth").write_text(f"{ours}\n", encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "-q", "--python", str(folder / "bin" / "python"), "install", "--no-deps"]
        if subprocess.run([*pip, *ENVIRONMENTS[peer].split()], check=False).returncode:
            print(f"{peer} does not install")


def export(options: argparse.Namespace):
    """Write the three parts, with ``REF_energy`` (eV) and ``REF_forces`` (eV/Å), and the recipe of SmoothDART."""
    if options.data in SHIPPED:
        dataset_class, name = SHIPPED[options.data]
        dataset = dataset_class(subset="forces_minima")
        split = dataset.group_split()
        recipe = shipped_recipe(name)
    else:
        root = options.folder / "processed"
        dataset = ClusterDataset(root, options.data, target=options.target, forces=True, references="fit")
        split = TrainingData(dataset, split="random", copies_together=True).split
        recipe = options.folder / "recipe.yaml"
        new_recipe(NewRecipeOptions(frames=[options.data], target=options.target, out=str(recipe), overwrite=True))
    for name, part in (("train", split.train), ("val", split.val), ("test", split.test)):
        write_extxyz(options.folder / f"{name}.extxyz", (atoms_of(dataset[index]) for index in part.tolist()))
        print(f"{options.folder / name}.extxyz: {part.numel()} frames")
    text = json.dumps(yaml.safe_load(recipe.read_text(encoding="utf-8")))
    (options.folder / "recipe.json").write_text(text, encoding="utf-8")


def atoms_of(cluster: Data) -> Atoms:
    atoms = Atoms(numbers=cluster.z.numpy(), positions=cluster.pos.numpy().astype(np.float64))
    atoms.info["REF_energy"] = float(cluster.y)
    atoms.arrays["REF_forces"] = cluster.force.numpy().astype(np.float64)
    return atoms


def train(options: argparse.Namespace):
    """Train each peer that has no result for this time."""
    for peer in options.peers:
        program = Path(__file__).with_name("peer_nep.py" if peer == "NEP" else "peers.py")
        python = options.environments / peer / "bin" / "python" if peer in ENVIRONMENTS else Path(sys.executable)
        settings = options.minutes, options.force_weight, options.weight_decay
        if (options.folder / file_name(peer, *settings)).exists() or not python.exists():
            continue
        command = [python, program, peer, options.folder, *map(str, settings)]
        run = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
        if run.returncode:
            print(f"{peer} ended with {run.returncode}")


def show(options: argparse.Namespace):
    """Print a table of all results, and draw errors over the cost of training and of inference."""
    results = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(options.folder.glob("*-*.json"))]
    results.sort(key=lambda result: (result["test"]["energy_mae"], result["minutes"]))
    print(
        "| model | parameters | processor time (min) | force weight, decay | epochs | "
        "energies, MAE / RMSE (kcal/mol) | meV/atom | forces, MAE / RMSE (meV/Å) | µs per atom |\n"
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    )
    for result in results:
        test = result["test"]
        name = f"{result['peer']} ({', '.join(' '.join(each) for each in result['packages'].items())})"
        energies = f"{test['energy_mae']:.1f} / {test['energy_rmse']:.1f} | {test['energy_mae_mev_per_atom']:.1f}"
        forces = f"{test['force_mae']:.0f} / {test['force_rmse']:.0f}"
        loss = f"{result['force_weight']:g}, {result['weight_decay']:g}" if "force_weight" in result else "its own"
        cost = f"{result['parameters']:,} | {result['minutes']:g} | {loss} | {result['epochs']:.0f}"
        print(f"| {name} | {cost} | {energies} | {forces} | {result['microseconds_per_atom']:.0f} |")
    if options.figure is not None:
        save_figure(figure_of(results), options.figure)


def figure_of(results: list[dict]) -> Figure:
    figure = Figure(figsize=(8.4, 6.4), layout="constrained")
    (energies, forces), (fast_energies, fast_forces) = figure.subplots(2, 2)
    panels = [
        (energies, fast_energies, "energy_mae", "energy MAE / kcal mol⁻¹"),
        (forces, fast_forces, "force_mae", "force MAE / meV Å⁻¹"),
    ]
    colors = dict(zip(PEERS, (*SHELL_COLORS, "black"), strict=True))
    for training, inference, key, label in panels:
        tidy(training, "processor time of training / s", f"{label} (validation)")
        tidy(inference, "energies and forces / µs per atom", f"{label} (test)")
        for result in results:
            seconds, errors = [point["seconds"] for point in result["curve"]], [point[key] for point in result["curve"]]
            training.plot(seconds, errors, color=colors[result["peer"]], marker="o", markersize=3, label=result["peer"])
            point = result["microseconds_per_atom"], result["test"][key]
            inference.plot(*point, "o", color=colors[result["peer"]], label=result["peer"])
        training.set_xscale("log")
        training.set_yscale("log")
        inference.set_xlim(left=0)
    figure.legend(*energies.get_legend_handles_labels(), loc="outside lower center", ncols=len(PEERS), frameon=False)
    return figure


if __name__ == "__main__":
    main()
