"""``pyg-clusters demo``."""

from pathlib import Path

from pyg_clusters.options.demo import DemoOptions
from pyg_clusters.options.parsing import command_words
from pyg_clusters.options.screen import ScreenOptions

OPTIONS = DemoOptions
EXAMPLE = "pyg-clusters demo --out runs/demo"
RECIPE = "dart-gallium-quick"
TRAJECTORY = "gallium_md_57"


def run(options: DemoOptions):
    """Train DART briefly, screen a trajectory with it, and print the results."""
    from pyg_clusters.frames.writing import open_output

    with open_output(Path(options.out), command_words("demo", options), results=()):
        train_and_screen(Path(options.out), options.top)


def train_and_screen(out: Path, top: int):
    """Train, screen and print the results, in two folders below ``out``."""
    from pyg_clusters.formatting import read_errors
    from pyg_clusters.screening import screen
    from pyg_clusters.training.train import train

    trained, screened = out / "training", out / "screening"
    print("1. Training DART on the shipped gallium minima")
    if (trained / "config.yaml").exists():
        train(["--resume", str(trained)])
    else:
        train([RECIPE, "--out", str(trained)])
    print(f"2. Screening {TRAJECTORY}")
    screening = screen(
        ScreenOptions(
            model=str(trained),
            frames=[TRAJECTORY],
            top=top,
            truth="quench_binding_energy",
            out=str(screened),
            overwrite=True,
        )
    )
    overall = read_errors(trained / "test_metrics.json")
    print(
        f"3. Done. DART on {overall['num_clusters']} clusters of search segments outside the training set: MAE "
        f"{overall['mae_kcal_mol']:.2f}, RMSE {overall['rmse_kcal_mol']:.2f} kcal/mol per cluster "
        f"({overall['mae_mev_per_atom']:.1f} meV per atom)\n"
        f"   {len(screening.candidates)} candidates of {len(screening.energy)} frames\n"
        f"   report      {screened / 'report.html'}\n"
        f"   candidates  {screened / 'candidates.extxyz'}, {screened / 'candidates.csv'}\n"
        f"   model       {trained / 'best'}\n"
        f"   figures     {trained / 'figures'}"
    )
