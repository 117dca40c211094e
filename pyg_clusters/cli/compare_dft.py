"""``pyg-clusters compare-dft``."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from jsonargparse import Namespace
from rich.console import Console
from rich.table import Table

from pyg_clusters.analysis.plot_style import save_figure
from pyg_clusters.errors import InputError
from pyg_clusters.formatting import cell
from pyg_clusters.frames import read_blocks, write_table
from pyg_clusters.frames.outputs import open_output
from pyg_clusters.frames.provenance import SOURCE_FILE, SOURCE_FRAME
from pyg_clusters.metrics import metrics_by_size
from pyg_clusters.options.parsing import parse, verb_parser
from pyg_clusters.screening.dft_results import DftResult, read_results
from pyg_clusters.screening.plots import predicted_and_found

RESULTS = ("found.csv", "found.png")


def run(argv: Sequence[str]):
    """Sets what DFT found for candidates beside what was predicted."""
    parser = verb_parser(
        "compare-dft",
        "What DFT (or any other program) found for the candidates of a screening beside what was predicted: found.csv "
        "and found.png in the folder of the screening. An output belongs to the candidate that its first structure is, "
        "whatever its name, and its last structure counts; where the first is missing, to that of the number of its "
        "folder (0001_Ga46, ...). Some may be missing. Energies are compared within a composition, so they may count "
        "from anywhere.",
        "pyg-clusters compare-dft screening screening/vasp/*/OUTCAR",
    )
    parser.add_argument("screening", type=Path, help="folder of the results of pyg-clusters screen")
    parser.add_argument("files", type=str, nargs="+", help="outputs: whatever ASE reads")
    parser.add_argument("--key", type=str, default="energy", help="name of the energy (eV) in the outputs")
    parser.add_argument("--overwrite", action="store_true", help="replace the results that are in the folder")
    options = parse(parser, argv)
    given = options.screening / "candidates.extxyz"
    if not given.is_file():
        raise InputError(f"{options.screening}: no candidates.extxyz in it; give the folder of a screening")
    command = ("compare-dft", *argv)
    with open_output(options.screening, command, inputs=options.files, overwrite=options.overwrite, results=RESULTS):
        write_found(given, options)


def write_found(given: Path, options: Namespace):
    """Write predicted and found energies of candidates.

    Args:
        given: File of the candidates.
        options: Of the command line.
    """
    blocks = list(read_blocks(given, with_atoms=True, on_bad="skip"))
    for frame in (frame for block in blocks for frame in block.unreadable):
        raise InputError(f"{frame}; make the candidates again with pyg-clusters screen")
    candidates = [atoms for block in blocks for atoms in block.atoms or ()]
    found = read_results(options.files, options.key, candidates)
    columns = compare(found, candidates)
    write_table(options.screening / RESULTS[0], columns)
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    pair = arrays["pred_above_mean"], arrays["found_above_mean"]
    save_figure(predicted_and_found(*pair, arrays["composition"]), options.screening / RESULTS[1])
    Console(width=120).print(_table(columns))
    print(
        f"{len(found)} of {len(candidates)} candidates: {', '.join(str(options.screening / name) for name in RESULTS)}"
    )


def compare(found: Sequence[DftResult], candidates: Sequence[Atoms]) -> dict[str, list]:
    """Columns of predicted and found energies; both also above their mean over the found ones of a composition."""
    atoms = [candidates[one.candidate - 1] for one in found]
    composition = np.array([one.symbols.get_chemical_formula() for one in atoms])
    predicted = np.array([float(one.info["pred_energy"]) for one in atoms])
    energy = np.array([one.energy for one in found])
    above = np.zeros((2, len(found)))
    for formula in np.unique(composition):
        of_it = composition == formula
        above[:, of_it] = [values[of_it] - values[of_it].mean() for values in (predicted, energy)]
    return {
        "candidate": [one.candidate for one in found],
        SOURCE_FILE: [str(one.info[SOURCE_FILE]) for one in atoms],
        SOURCE_FRAME: [int(one.info[SOURCE_FRAME]) for one in atoms],
        "size": [len(one) for one in atoms],
        "composition": composition.tolist(),
        "pred_energy": predicted.tolist(),
        "found_energy": energy.tolist(),
        "pred_above_mean": above[0].tolist(),
        "found_above_mean": above[1].tolist(),
        "output": [one.file for one in found],
    }


def _table(columns: dict[str, list]) -> Table:
    """Agreement, and the lowest that was found, of each composition."""
    table = Table(title="Predicted and found", title_justify="left")
    headings = ("", "found", "MAE without the mean (kcal/mol)", "Spearman", "lowest found", "its rank by prediction")
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left")
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    for formula in dict.fromkeys(columns["composition"]):
        of_it = arrays["composition"] == formula
        predicted, energy = arrays["pred_above_mean"][of_it], arrays["found_above_mean"][of_it]
        (row,) = metrics_by_size(predicted, energy, arrays["size"][of_it])
        lowest = int(np.argmin(energy))
        rank = int((predicted < predicted[lowest]).sum()) + 1
        name = f"candidate {arrays['candidate'][of_it][lowest]}"
        table.add_row(formula, str(len(energy)), cell(row["mae_kcal_mol"]), cell(row["spearman"]), name, str(rank))
    return table
