"""``pyg-clusters label shielding``."""

from collections.abc import Sequence
from typing import Literal

from pyg_clusters.errors import InputError
from pyg_clusters.labels import ShieldingLabeller, ShieldingLevel
from pyg_clusters.labels.dft.memory import FREE, GB, free_memory
from pyg_clusters.labels.verb import add_label_options, label_files
from pyg_clusters.options.parsing import parse, verb_parser


def run(argv: Sequence[str]):
    """Writes frames with shieldings."""
    level = ShieldingLevel()
    parser = verb_parser(
        "label shielding",
        "Shieldings of every atom by PySCF, B3LYP/6-31G(d) with GIAOs: nmr_shielding and nmr_tensor (ppm), gop (gross "
        "orbital populations), energy (eV), s2. Each frame is written when it is done: killed and started with the "
        "same arguments the command goes on. Frames whose broken-symmetry singlet is not nearly a closed shell, and "
        "those that do not converge, lie in OUT.set_aside.extxyz, with the reason.",
        "pyg-clusters label shielding na.extxyz --workers 2 --out na_shieldings.extxyz",
    )
    add_label_options(parser)
    parser.add_argument("--charge", type=int, default=0, help="total charge of frames that state none")
    parser.add_argument("--max-s2", type=float, default=0.05, help="frames from this <S^2> on are set aside")
    parser.add_argument(
        "--spin-test",
        type=Literal["s2", "stability"],
        default="s2",
        help="s2: by the broken-symmetry singlet; stability: by that of the closed shell alone, the cheap test",
    )
    parser.add_argument(
        "--label-unstable", action="store_true", help="shieldings of frames that are set aside for their spin, too"
    )
    parser.add_argument("--exact", action="store_true", help="exact integrals, no density fitting: many times slower")
    parser.add_argument("--grid", type=int, default=level.grid, help="PySCF's level of the integration grid, 0 to 9")
    parser.add_argument(
        "--scf-tolerance", type=float, default=level.scf_tolerance, help="convergence of the energy in hartree"
    )
    parser.add_argument(
        "--response-tolerance", type=float, default=level.response_tolerance, help="of the coupled-perturbed equations"
    )
    parser.add_argument("--memory", type=float | None, help="GB for all workers; by default nearly all that is free")
    parser.add_argument(
        "--device", type=Literal["cpu", "cuda"], default="cpu", help="cuda: gpu4pyscf, with exact integrals"
    )
    options = parse(parser, argv)
    if options.memory is not None and options.memory <= 0:
        raise InputError(f"--memory must be positive, in GB, got {options.memory}")
    if options.workers < 1:
        raise InputError(f"--workers must be at least 1, got {options.workers}")
    exact = options.exact or options.device == "cuda"
    labeller = ShieldingLabeller(
        ShieldingLevel(
            fitting=None if exact else level.fitting,
            grid=options.grid,
            scf_tolerance=options.scf_tolerance,
            response_tolerance=options.response_tolerance,
        ),
        charge=options.charge,
        max_s2=options.max_s2,
        spin_test=options.spin_test,
        label_unstable=options.label_unstable,
        memory=(FREE * free_memory() if options.memory is None else GB * options.memory) / options.workers,
        device=options.device,
    )
    names = ("charge", "max_s2", "spin_test", "label_unstable", "grid", "scf_tolerance", "response_tolerance")
    label_files(labeller, {**{name: getattr(options, name) for name in names}, "exact": exact}, options)
