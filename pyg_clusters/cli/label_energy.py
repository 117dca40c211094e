"""``pyg-clusters label energy``."""

from collections.abc import Sequence

from pyg_clusters.labels import EnergyLabeller
from pyg_clusters.labels.verb import add_label_options, label_files
from pyg_clusters.options.parsing import parse, verb_parser
from pyg_clusters.structures import named_calculator
from pyg_clusters.structures.calculators import CALCULATORS, calculator_identity


def run(argv: Sequence[str]):
    """Writes frames with energies and forces."""
    parser = verb_parser(
        "label energy",
        "Energy (eV) and forces (eV/Å) of frames by a calculator, in place of those that they have. Each frame is "
        "written when it is done: killed and started with the same arguments the command goes on. Frames that the "
        "calculator fails on lie in OUT.set_aside.extxyz, with the reason.",
        "pyg-clusters label energy na.extxyz --calculator tblite --out na_energies.extxyz",
    )
    add_label_options(parser)
    parser.add_argument("--calculator", type=str, required=True, help=f"energy and forces: {CALCULATORS}")
    options = parse(parser, argv)
    if options.calculator != "gupta":
        named_calculator(options.calculator, ())  # a wrong name is told before frames are read
    label_files(EnergyLabeller(options.calculator), {"calculator": calculator_identity(options.calculator)}, options)
