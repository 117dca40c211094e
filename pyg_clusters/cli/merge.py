"""``pyg-clusters merge``."""

from collections.abc import Sequence
from pathlib import Path

from pyg_clusters.cli.outputs import open_output
from pyg_clusters.cli.parsing import parse, verb_parser
from pyg_clusters.cli.predict import list_bad
from pyg_clusters.inference.shards import merge_shards


def run(argv: Sequence[str]):
    """Puts the predictions of all parts of a job array together."""
    parser = verb_parser(
        "merge",
        "The predictions of all parts that predict --shard made, in the order of the input, as one run would have "
        "written them.",
        "pyg-clusters merge part1.parquet part2.parquet --out predictions.parquet",
    )
    parser.add_argument("parts", type=Path, nargs="+", help="what predict --shard wrote, in any order")
    parser.add_argument("--overwrite", action="store_true", help="replace the file that is there")
    parser.add_argument("--out", type=Path, required=True, help="file of the same type as the parts")
    options = parse(parser, argv)
    with open_output(options.out, ("merge", *argv), inputs=options.parts, overwrite=options.overwrite):
        merged = merge_shards(options.parts, options.out)
    list_bad(merged.bad)
    print(f"{merged.num_frames} frames in {options.out}")
