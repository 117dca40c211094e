"""``pyg-clusters ensemble``."""

from collections.abc import Sequence
from pathlib import Path

from pyg_clusters.errors import InputError
from pyg_clusters.frames.outputs import open_output
from pyg_clusters.models import Ensemble, load_model, save_ensemble
from pyg_clusters.models.checkpoint import ENSEMBLE
from pyg_clusters.options.parsing import parse, verb_parser
from pyg_clusters.training.run import target_of_run


def run(argv: Sequence[str]):
    """Makes an ensemble of runs that are there."""
    parser = verb_parser(
        "ensemble",
        "One model of several runs, which stay where they are: wherever a run is asked for, the folder will do. The "
        "prediction is the mean of the members. (train --ensemble 5 trains the members too.)",
        "pyg-clusters ensemble runs/dart_a runs/dart_b runs/dart_c --out runs/dart",
    )
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs or saved models, of the same data")
    parser.add_argument("--out", type=Path, required=True, help="folder of the ensemble")
    options = parse(parser, argv)
    with open_output(options.out, ("ensemble", *argv), results=(ENSEMBLE,)):
        join(options.runs, options.out)


def join(runs: Sequence[Path], out: Path):
    """Write the folder of an ensemble.

    Raises:
        InputError: If the runs are of different targets.
    """
    ensemble = Ensemble([load_model(member) for member in runs])
    targets = {member: target for member in runs if (target := target_of_run(member)) is not None}
    for member, target in targets.items():
        first = next(iter(targets))
        if target != targets[first]:
            raise InputError(f"{first} was trained on {targets[first]}, {member} on {target}: they make no ensemble")
    save_ensemble(out, runs)
    print(f"{ensemble} in {out}")
