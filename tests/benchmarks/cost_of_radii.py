"""Cost of badly chosen radii: ``python tests/benchmarks/cost_of_radii.py FOLDER FRAMES... [--target NAME]``.

``new-recipe`` chooses radii and width of SmoothDART by the bond length of the frames. The script trains the same recipe
with these lengths multiplied by factors, and prints the errors on the same test set. A repeated call resumes.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import yaml

from pyg_clusters.inference.run import METRICS
from pyg_clusters.options.training import NewRecipeOptions
from pyg_clusters.training.launcher import Training, run_trainings
from pyg_clusters.training.new_recipe import new_recipe

LENGTHS = ("radii", "descriptor_radii", "width")


def scale(recipe: dict, factor: float):
    """Multiply the radii and the width of the model in a recipe."""
    training = recipe["model"]
    arguments = training.get("init_args", training)["model"]["init_args"]
    for name in LENGTHS:
        arguments[name] = np.round(factor * np.array(arguments[name]), 2).tolist()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("frames", nargs="+")
    parser.add_argument("--target", help="name of the energy in the frames")
    parser.add_argument("--factors", type=float, nargs="+", default=[1.0, 0.7, 0.85, 1.2, 1.4])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    recipe = args.folder / "recipe.yaml"
    print(
        new_recipe(
            NewRecipeOptions(
                frames=args.frames, target=args.target, epochs=args.epochs, out=str(recipe), overwrite=True
            )
        )
    )
    options = ("--data.dataset.root", str(args.folder / "processed"), "--data.dataset.references", "fit")
    trainings = []
    for factor in args.factors:
        content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        scale(content, factor)
        file = args.folder / f"{factor:g}.yaml"
        file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        trainings.append(Training(f"{factor:g}", file, options))
    run_trainings(trainings, args.folder, args.workers)
    print("| factor | energies, MAE / RMSE (kcal/mol) | forces, MAE (meV/Å) |\n|--:|--:|--:|")
    for factor in sorted(args.factors):
        errors = json.loads((args.folder / f"{factor:g}" / METRICS).read_text(encoding="utf-8"))
        energies = f"{errors['overall']['mae_kcal_mol']:.1f} / {errors['overall']['rmse_kcal_mol']:.1f}"
        forces = f"{errors['forces']['mae_mev_per_angstrom']:.0f}" if "forces" in errors else "none"
        print(f"| {factor:g} | {energies} | {forces} |", flush=True)


if __name__ == "__main__":
    main()
