"""``pyg-clusters demo``: train, evaluate and screen on the shipped data."""

from pathlib import Path

from pyg_clusters.frames.writing import open_output
from pyg_clusters.inference.run import Run
from pyg_clusters.options.screening import ScreenOptions
from pyg_clusters.options.training import DemoOptions
from pyg_clusters.screening import screen
from pyg_clusters.training import train

RECIPE = "dart-gallium-quick"
TRAJECTORY = "gallium_md_57"


def demo(options: DemoOptions) -> str:
    """Train DART briefly and screen a trajectory with it, in two folders below ``out``.

    Returns:
        The results and their files as text.
    """
    out = Path(options.out)
    trained, screened = out / "training", out / "screening"
    with open_output(options, results=()):
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
                top=options.top,
                truth="quench_binding_energy",
                out=str(screened),
                overwrite=True,
            )
        )
        errors = Run(trained).metrics or {}
    return (
        f"3. Done. DART on {errors['num_clusters']} clusters of search segments outside the training set: MAE "
        f"{errors['mae_kcal_mol']:.2f}, RMSE {errors['rmse_kcal_mol']:.2f} kcal/mol per cluster "
        f"({errors['mae_mev_per_atom']:.1f} meV per atom)\n"
        f"   {len(screening.candidates)} candidates of {len(screening.energy)} frames\n"
        f"   report      {screened / 'report.html'}\n"
        f"   candidates  {screened / 'candidates.extxyz'}, {screened / 'candidates.csv'}\n"
        f"   model       {trained / 'best'}\n"
        f"   figures     {trained / 'figures'}"
    )
