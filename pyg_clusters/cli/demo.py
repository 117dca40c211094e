"""``pyg-clusters demo``."""

from collections.abc import Sequence
from pathlib import Path

from pyg_clusters.cli import screen, train
from pyg_clusters.datasets.paths import shipped_folder
from pyg_clusters.formatting import read_errors
from pyg_clusters.frames.outputs import open_output
from pyg_clusters.options.parsing import parse, verb_parser
from pyg_clusters.training.recipes import shipped_recipe

RECIPE = "dart_gallium_quick.yaml"
TRAJECTORY = "gallium_md_57.extxyz.xz"


def run(argv: Sequence[str]):
    """Trains DART briefly, screens a trajectory with it, and says where everything is."""
    parser = verb_parser(
        "demo",
        "The main job from end to end on the data that ship: train DART on gallium clusters for two minutes, evaluate "
        "it on clusters that it has not seen, score an MD trajectory of Ga57 and pick the lowest-energy candidates.",
        "pyg-clusters demo --out runs/demo",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the results")
    parser.add_argument("--top", type=int, default=100, help="number of candidates")
    options = parse(parser, argv)
    with open_output(options.out, ("demo", *argv), results=()):
        demo(options.out, options.top)


def demo(out: Path, top: int):
    """Train, screen and print the results, in two folders below ``out``."""
    trained, screened = out / "training", out / "screening"
    print("1. Training DART on the shipped gallium minima")
    if (trained / "config.yaml").exists():
        train.run(["--resume", str(trained)])
    else:
        train.run(["--config", str(shipped_recipe(RECIPE)), "--out", str(trained)])
    print(f"2. Screening {TRAJECTORY}")
    frames = shipped_folder("gallium_clusters") / TRAJECTORY
    truth = ["--truth", "quench_binding_energy"]
    arguments = [str(trained), str(frames), "--top", str(top), *truth, "--out", str(screened), "--overwrite"]
    screen.run(arguments)
    overall = read_errors(trained / "test_metrics.json")
    print(
        f"3. Done. DART on {overall['num_clusters']} clusters of other search segments than it was trained on: MAE "
        f"{overall['mae_kcal_mol']:.2f}, RMSE {overall['rmse_kcal_mol']:.2f} kcal/mol per cluster "
        f"({overall['mae_mev_per_atom']:.1f} meV per atom)\n"
        f"   report      {screened / 'report.html'}\n"
        f"   candidates  {screened / 'candidates.extxyz'}, {screened / 'candidates.csv'}\n"
        f"   model       {trained / 'best'}\n"
        f"   figures     {trained / 'figures'}"
    )
