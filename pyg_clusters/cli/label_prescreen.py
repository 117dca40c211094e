"""``pyg-clusters label prescreen``."""

from collections.abc import Sequence

from pyg_clusters.labels import StabilityLabeller
from pyg_clusters.labels.dft.memory import FREE, free_memory
from pyg_clusters.labels.verb import add_label_options, label_files
from pyg_clusters.options.parsing import parse, verb_parser


def run(argv: Sequence[str]):
    """Writes the frames whose closed shell is probably stable."""
    parser = verb_parser(
        "label prescreen",
        "Which sodium clusters label shielding is worth: tight_binding_gap (of one s orbital per atom), and "
        "valence_lambda_triplet (eV, lowest eigenvalue of the triplet stability matrix with one electron per atom). "
        "Frames of a small gap or a low eigenvalue lie in OUT.set_aside.extxyz, with the reason. Each frame is written "
        "when it is done: killed and started with the same arguments the command goes on.",
        "pyg-clusters label prescreen na.extxyz --min-gap 0.14 --out na_stable.extxyz",
    )
    add_label_options(parser)
    parser.add_argument("--charge", type=int, default=0, help="total charge of frames that state none")
    parser.add_argument(
        "--min-gap",
        type=float,
        default=StabilityLabeller.min_gap,
        help="frames of a smaller tight-binding gap are set aside at once; in units of the hopping at 3.6 Å",
    )
    parser.add_argument(
        "--least", type=float, default=StabilityLabeller.least, help="frames of a lower eigenvalue are set aside, in eV"
    )
    options = parse(parser, argv)
    names = ("min_gap", "least", "charge")
    given = {name: getattr(options, name) for name in names}
    labeller = StabilityLabeller(**given, memory=FREE * free_memory() / max(options.workers, 1))
    label_files(labeller, given, options)
