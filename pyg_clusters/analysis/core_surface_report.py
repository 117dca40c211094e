"""Table, figure and report of the analysis of core and surface atoms."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import nn

from pyg_clusters.analysis.core_surface import REGIONS, CoreSurface, separate_regions
from pyg_clusters.analysis.descriptor import shell_name
from pyg_clusters.analysis.frame_set import read_set
from pyg_clusters.analysis.plots import SMALL, color_bar
from pyg_clusters.analysis.report import Report, literal
from pyg_clusters.composition import above_element_mean
from pyg_clusters.errors import InputError
from pyg_clusters.files import write_json
from pyg_clusters.frames import write_table
from pyg_clusters.frames.paths import check_named_once
from pyg_clusters.frames.provenance import SOURCE_FILE, SOURCE_FRAME
from pyg_clusters.frames.writing import open_output
from pyg_clusters.geometry import parse_radii
from pyg_clusters.models.checkpoint import load_model, usable_device
from pyg_clusters.models.contract import HasAtomicEnergies, HasFeatures
from pyg_clusters.models.training_domain import domain_of, state_of_training
from pyg_clusters.options.frames import CoreSurfaceOptions
from pyg_clusters.options.parsing import command_words, parse_sizes
from pyg_clusters.terminal import span

REGION_COLORS = ("#c8452e", "#e3b23c", "#2f6db3")

RESULTS = ("atoms.csv", "core_surface.json", "report.html")

FILES = {
    "atoms.csv": "a row for each atom: element, region, distance, energy, counts and coordinates in the map",
    "core_surface.json": "the figures of merit",
}
"""Other files in the folder of the report."""


def analyse_core_surface(options: CoreSurfaceOptions) -> CoreSurface:
    """Analyse core and surface atoms of frames in the features of a model, and write table, figure and report.

    Raises:
        InputError: If the model has no features of atoms, a region is empty, or there are too few clusters.
    """
    with open_output(options, results=RESULTS):
        check_named_once(options.frames)
        model = load_model(options.model)
        needed = {"atomic energies": HasAtomicEnergies, "features of atoms": HasFeatures}
        if lacks := [name for name, method in needed.items() if not isinstance(model, method)]:
            raise InputError(f"{options.model}: {type(model).__name__} has no {' and '.join(lacks)}; give a DART")
        frames = read_set(
            options.frames,
            group=options.group,
            sizes=parse_sizes(options.sizes) if options.sizes else None,
            atomic_numbers=domain.atomic_numbers if (domain := domain_of(model)) else None,
            state=state_of_training(model),
            on_bad=options.on_bad,
            fragments=options.fragments,
        )
        radii = _two_radii(model, options.radii)
        device = usable_device(options.device)
        result = separate_regions(model.to(device), frames, radii, options.perplexity, options.seed, options.group)
        result.out, folder = options.out, Path(options.out)
        write_table(folder / "atoms.csv", atom_columns(result))
        write_json(folder / "core_surface.json", summary(result, options.model))
        report = make_report(result, options.model, shlex.join(command_words(options)))
        report.write(folder / "report.html")
    return result


def _two_radii(model: nn.Module, text: str | None) -> tuple[float, float]:
    radii = getattr(model, "radii", ())[:2] if text is None else parse_radii(text)
    if len(radii) != 2:
        problem = f"the model has {len(radii)} shell radii" if text is None else f"--radii {text} has {len(radii)}"
        raise InputError(f"core and surface need two radii, but {problem}: pass --radii, for example 3.49,6.3")
    return radii[0], radii[1]


def region_rows(result: CoreSurface) -> list[dict[str, Any]]:
    """Number of atoms, mean energy and mean counts of each element in each region."""
    atoms, z = result.atoms, result.frames.z
    return [
        {
            "region": name,
            "element": chemical_symbols[element],
            "atoms": int(inside.sum()),
            "mean_energy_ev": float(atoms.energy[inside].mean()),
            "std_energy_ev": float(atoms.energy[inside].std()),
            "mean_counts": atoms.counts[inside].mean(axis=0).tolist(),
        }
        for index, name in enumerate(REGIONS)
        for element in np.unique(z)
        if (inside := (result.region == index) & (z == element)).any()
    ]


def summary(result: CoreSurface, name: str) -> dict:
    """Figures of merit as JSON types."""
    return {
        "model": name,
        "trained_on_sizes": result.trained_sizes,
        "frames": sorted(set(result.frames.file.tolist())),
        "sizes": np.unique(result.frames.sizes).tolist(),
        "num_clusters": len(result.frames),
        "num_atoms": len(result.frames.z),
        "radii": list(result.radii),
        **result.settings,
        "regions": region_rows(result),
        "silhouette": result.silhouettes,
        "linear_probe": {
            name: {
                "balanced_accuracy": probe.balanced_accuracy,
                "std_over_folds": probe.fold_spread,
                "recall": dict(zip(REGIONS, probe.recall.tolist(), strict=True)),
            }
            for name, probe in result.probes.items()
        },
        "chance": 1 / len(REGIONS),
    }


def atom_columns(result: CoreSurface) -> dict[str, np.ndarray]:
    """A row for each atom."""
    frames = result.frames
    sizes = frames.sizes
    columns = {
        SOURCE_FILE: np.repeat(frames.origins[0], sizes),
        SOURCE_FRAME: np.repeat(frames.origins[1], sizes),
        "atom": np.concatenate([np.arange(size) for size in sizes]),
        "element": np.array(chemical_symbols)[frames.z],
        "region": np.array(REGIONS)[result.region],
        "distance": result.distance,
        "pred_atom_energy": result.atoms.energy,
        "tsne_1": result.points[:, 0],
        "tsne_2": result.points[:, 1],
    }
    names = (shell_name(shell) for shell in range(result.atoms.counts.shape[1]))
    return columns | {f"count_{name}": values for name, values in zip(names, result.atoms.counts.T, strict=True)}


def make_report(result: CoreSurface, model_name: str, command: str) -> Report:
    """HTML report."""
    first, second = result.radii
    several = len(np.unique(result.frames.z)) > 1
    energy, of_mean = result.atoms.energy, ""
    if several:
        energy, of_mean = above_element_mean(energy, result.frames.z), " above the mean of its element"
    report = Report("Core and surface in the features of the model")
    report.origin(command)
    report.text(
        f"{len(result.frames):,} clusters of {span(result.frames.sizes)} atoms, analysed with the model "
        f"`{literal(model_name)}`. An atom is core within {first:g} Å of the centre of mass, surface beyond "
        f"{second:g} Å. Its features are the "
        f"{result.atoms.features.shape[1]} numbers after the last hidden layer of the interaction network."
    )
    if note := result.training_note:
        report.text(f"{note[0].upper()}{note[1:]}.")
    report.figure(
        region_map(result.points, result.region, energy, f"energy of the atom{of_mean} / eV"),
        f"t-SNE of the features (perplexity {result.settings['perplexity']:g}, seed {result.settings['seed']}), by "
        f"region and by the energy of the atom{of_mean}. Distances in a t-SNE map mean little: rely on the table "
        "below.",
        "tsne",
    )
    rows = [
        [name, probe.balanced_accuracy, probe.fold_spread, *probe.recall, result.silhouettes[name]]
        for name, probe in result.probes.items()
    ]
    map_row = ["t-SNE", *[None] * (2 + len(REGIONS)), result.silhouettes["map"]]
    recalls = [f"{name} recall" for name in REGIONS]
    report.table(
        ["input", "balanced accuracy", "± folds", *recalls, "silhouette"],
        [*rows, map_row],
        f"Logistic regression for the region, cross-validated over {result.settings['num_groups']} groups (each a "
        f"{result.settings['groups']}); chance is 0.333. Silhouettes go from -1 to 1, 0 where regions overlap."
        + (" The counts include the element of the atom." if several else ""),
    )
    names = [f"mean {shell_name(shell)}" for shell in range(result.atoms.counts.shape[1])]
    table = [
        [row["region"], row["element"], row["atoms"], row["mean_energy_ev"], row["std_energy_ev"], *row["mean_counts"]]
        for row in region_rows(result)
    ]
    report.table(
        ["region", "element", "atoms", "mean energy / eV", "spread / eV", *names],
        table,
        "The atoms of each region. The model was trained on energies of clusters: their division among the atoms is "
        "not determined by the data.",
    )
    report.next_steps(
        FILES,
        "Other radii (`--radii`) show how the result depends on where core and surface end; `pyg-clusters describe` "
        "shows which structures the shell counts alone cannot tell apart.",
    )
    return report


def region_map(points: np.ndarray, region: np.ndarray, energy: np.ndarray, label: str) -> Figure:
    """Map of atoms at ``points [num_atoms, 2]``, coloured by region on the left and by energy (in eV, with a colour bar
    of this label) on the right.
    """
    figure = Figure(figsize=(9.2, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    size = float(np.clip(2e4 / len(points), 1.5, 20.0))
    order = np.random.default_rng(0).permutation(len(points))  # random order: no region hides another
    style = {"s": size, "linewidths": 0, "alpha": 0.7, "rasterized": True}
    left.scatter(*points[order].T, c=np.array(REGION_COLORS)[region[order]], **style)
    for number, name in enumerate(REGIONS):
        counted = f"{name} ({int((region == number).sum()):,})"
        left.plot([], [], "o", color=REGION_COLORS[number], markersize=6, label=counted)
    # Place the legend below the map, where it hides no atom.
    left.legend(fontsize=SMALL, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=len(REGIONS))
    norm = Normalize(*np.percentile(energy, [1.0, 99.0]))  # exclude outliers from the colour range
    right.scatter(*points[order].T, c=energy[order], norm=norm, cmap="viridis", **style)
    color_bar(figure, ScalarMappable(norm, "viridis"), right, label, shrink=0.8, extend="both")
    for axes in (left, right):
        axes.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
        axes.spines[:].set_color("#c9cdd3")
    return figure
