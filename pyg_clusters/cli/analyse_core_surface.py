"""``pyg-clusters analyse core-surface``."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from pyg_clusters.analysis.core_surface_report import summary_lines, write_results
from pyg_clusters.analysis.core_surface_set import analyse
from pyg_clusters.cli.sizes import parse_sizes
from pyg_clusters.datasets.frame_sets import parse_radii, read_set
from pyg_clusters.errors import InputError
from pyg_clusters.frames.checks import list_bad
from pyg_clusters.frames.outputs import open_output
from pyg_clusters.inference.predictor import usable_device
from pyg_clusters.models import DART
from pyg_clusters.models.checkpoint import load_model
from pyg_clusters.options.common import add_frame_options
from pyg_clusters.options.parsing import parse, verb_parser


def run(argv: Sequence[str]):
    """Core and surface: writes a table of atoms, figures of merit, figures and a report."""
    parser = verb_parser(
        "analyse core-surface",
        "Whether a model tells core from surface (Modee et al. 2021, section 3.4): the 32 features of each atom after "
        "the third hidden layer of the interaction network, their t-SNE, silhouettes, and a linear probe "
        "cross-validated over clusters, beside the same probe on the shell counts. Writes atoms.csv, "
        "core_surface.json, figures and report.html.",
        "pyg-clusters analyse core-surface runs/dart gallium --sizes 70 --out core_surface",
    )
    add_frame_options(parser)
    parser.add_argument("--sizes", type=str | None, help="numbers of atoms of the clusters to take, as in 70 or 60:70")
    parser.add_argument(
        "--radii",
        type=str | None,
        help="where the core ends and the surface begins, in Å from the centre of mass; by default the model's",
    )
    parser.add_argument("--perplexity", type=float, default=30.0, help="of t-SNE")
    parser.add_argument("--seed", type=int, default=0, help="of t-SNE")
    parser.add_argument(
        "--group", type=str | None, help="a value in the frames: clusters that share it are not split by the folds"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    options = parse(parser, argv)
    if options.seed < 0:
        raise InputError(f"--seed must not be negative, got {options.seed}")
    with open_output(options.out, ("analyse", "core-surface", *argv), results=()):
        analyse_frames(options)


def analyse_frames(options: Namespace):
    """Analyse the atoms of frames, and write and print the results."""
    model = load_model(options.model)
    if type(model) is not DART:
        raise InputError(f"{options.model}: a {type(model).__name__} has no atomic energies and features; give a DART")
    frames = read_set(
        options.frames,
        properties=[options.group] if options.group else [],
        sizes=parse_sizes(options.sizes) if options.sizes else None,
        atomic_numbers=model.domain.atomic_numbers if model.domain.known else None,
        on_bad=options.on_bad,
        fragments=options.fragments,
    )
    list_bad(frames.bad)
    device = usable_device(options.device)
    radii = _two_radii(model, options.radii)
    result = analyse(model.to(device), frames, radii, options.perplexity, options.seed, options.group)
    write_results(result, model, options.model, options.out)
    print("\n".join(summary_lines(result, model)))
    print(f"table, figures and report in {options.out}")


def _two_radii(model: DART, text: str | None) -> tuple[float, float]:
    radii = model.radii[:2] if text is None else parse_radii(text)
    if len(radii) != 2:
        what = "the model has one shell radius" if text is None else f"--radii {text} are {len(radii)}"
        raise InputError(f"core and surface need two radii, but {what}: give --radii as in 3.49,6.3")
    return radii[0], radii[1]
