"""``pyg-clusters evaluate``."""

from collections.abc import Sequence
from pathlib import Path

from pyg_clusters.errors import InputError
from pyg_clusters.evaluation.run import evaluate_frames, evaluate_run
from pyg_clusters.frames.outputs import open_output
from pyg_clusters.inference.loading import load_calibration
from pyg_clusters.options.common import add_energy_unit_option, add_reading_options
from pyg_clusters.options.parsing import parse, verb_parser

LABELS = {
    "num_clusters": "clusters",
    "mae_kcal_mol": "MAE (kcal/mol)",
    "rmse_kcal_mol": "RMSE (kcal/mol)",
    "mae_mev_per_atom": "MAE (meV/atom)",
    "rmse_mev_per_atom": "RMSE (meV/atom)",
    "spearman_within_size": "Spearman within a size",
    "spearman": "Spearman",
    "size": "atoms",
    "composition": "composition",
    "coverage": "coverage asked for",
    "coverage_reached": "coverage reached",
    "standard_error": "standard error",
    "mean_width_kcal_mol": "mean width (kcal/mol)",
    "num_groups": "groups",
    "mae_mev_per_angstrom": "MAE (meV/Å)",
    "rmse_mev_per_angstrom": "RMSE (meV/Å)",
}
CLUSTERS_AT_ONCE = 64
"""Clusters whose forces are computed together."""


def run(argv: Sequence[str]):
    """Prints the errors of a trained model and writes them as JSON."""
    parser = verb_parser(
        "evaluate",
        "Errors of a trained model: on the test set of its run, or on labelled frames.",
        "pyg-clusters evaluate runs/dart",
    )
    parser.add_argument("run", type=Path, help="folder of a run, or of a saved model")
    parser.add_argument("--data", type=str, nargs="+", help="labelled frames, instead of the test set of the run")
    parser.add_argument(
        "--target",
        type=str | None,
        help="name of the label in the frames: the energy, or the shielding of each atom in ppm; by default what the "
        "model was trained on, or binding_energy (nmr_shielding) if that is not known",
    )
    add_energy_unit_option(parser, "the energies in --data")
    parser.add_argument("--out", type=Path, help="JSON file of the result, if --data is given")
    parser.add_argument("--coverage", type=float | None, help="probability that the intervals hold, 0.9 for example")
    add_reading_options(parser)
    options = parse(parser, argv)
    coverage = options.coverage
    calibration = None if coverage is None else load_calibration(options.run, coverage)
    if options.data is None:
        if options.out is not None:
            raise InputError("--out goes with --data; the errors of a run are written to its test_metrics.json")
        if options.energy_unit is not None:
            raise InputError("--energy-unit goes with --data; a run knows the unit of its own data")
        with open_output(options.run, ("evaluate", *argv), results=()):
            evaluate_run(options.run, device=options.device, calibration=calibration, coverage=coverage)
        return
    with open_output(options.out, ("evaluate", *argv), inputs=options.data, overwrite=True):
        evaluate_frames(options, calibration)
