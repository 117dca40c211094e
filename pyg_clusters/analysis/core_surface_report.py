"""The results of ``pyg-clusters analyse``: on the screen, as files, and as a report."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pyg_clusters.analysis import plots_core_surface
from pyg_clusters.analysis.core_surface import (
    REGIONS,
)
from pyg_clusters.analysis.core_surface_set import CoreSurface
from pyg_clusters.analysis.descriptor import shell_name
from pyg_clusters.analysis.plot_style import save_figure
from pyg_clusters.analysis.report import Report, literal
from pyg_clusters.files import atomic_write
from pyg_clusters.frames import write_table
from pyg_clusters.models import DART

DRAWN_CLUSTERS = 3
"""Clusters whose atoms are coloured by their energies in the report."""

SPACES = {
    "features": "features of the network",
    "counts": "shell counts alone",
    "features and counts": "features and counts",
}
"""What the regions are read off, and how the report calls it."""


def region_rows(result: CoreSurface) -> list[dict[str, Any]]:
    """Number of atoms, mean energy and mean counts of each region."""
    rows = []
    for number, name in enumerate(REGIONS):
        inside = result.region == number
        energy = result.atoms.energy[inside]
        rows.append(
            {
                "region": name,
                "atoms": int(inside.sum()),
                "mean_energy_ev": float(energy.mean()),
                "std_energy_ev": float(energy.std()),
                "mean_counts": result.atoms.counts[inside].mean(axis=0).tolist(),
            }
        )
    return rows


def summary(result: CoreSurface, model: DART, folder: Path) -> dict:
    """The figures of merit in JSON's types."""
    return {
        "model": str(folder),
        "trained_on_sizes": list(model.domain.size_range) if model.domain.known else None,
        "frames": sorted(set(result.frames.file.tolist())),
        "sizes": np.unique(result.frames.sizes).tolist(),
        "num_clusters": len(result.frames),
        "num_atoms": len(result.frames.z),
        "radii": list(result.radii),
        **result.settings,
        "regions": region_rows(result),
        "silhouette": result.silhouettes,
        "silhouette_core_surface": result.core_surface_silhouettes,
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


def summary_lines(result: CoreSurface, model: DART) -> list[str]:
    """What is printed."""
    numbers = ", ".join(f"{row['region']} {row['atoms']:,}" for row in region_rows(result))
    lines = [f"{len(result.frames):,} clusters, {len(result.frames.z):,} atoms: {numbers}"]
    for name, probe in result.probes.items():
        lines.append(
            f"linear probe on {name}: balanced accuracy {probe.balanced_accuracy:.3f} (chance 0.333), silhouette "
            f"{result.silhouettes[name]:.3f} (core and surface alone {result.core_surface_silhouettes[name]:.3f})"
        )
    return [*lines, *_seen_in_training(result, model)]


def _seen_in_training(result: CoreSurface, model: DART) -> list[str]:
    if not model.domain.known:
        return []
    first, last = model.domain.size_range
    sizes = result.frames.sizes
    if not ((sizes >= first) & (sizes <= last)).any():
        return []
    return [
        f"note: the model was trained on clusters of {first} to {last} atoms, these or related ones may be among them"
    ]


def write_results(result: CoreSurface, model: DART, model_folder: Path, folder: Path):
    """Writes the table of atoms, the figures of merit, figures and report."""
    write_table(folder / "atoms.csv", atom_columns(result))
    with atomic_write(folder / "core_surface.json") as path:
        path.write_text(json.dumps(summary(result, model, model_folder), indent=2) + "\n")
    figures = core_surface_figures(result)
    for name, figure in figures.items():
        save_figure(figure, folder / "figures" / f"{name}.png")
    make_report(result, model, model_folder, figures).write(folder / "report.html")


def atom_columns(result: CoreSurface) -> dict[str, np.ndarray]:
    """A row for each atom."""
    frames = result.frames
    sizes = frames.sizes
    columns = {
        "source_file": np.repeat(frames.file, sizes),
        "source_frame": np.repeat(frames.number, sizes),
        "atom": np.concatenate([np.arange(size) for size in sizes]),
        "region": np.array(REGIONS)[result.region],
        "distance": result.distance,
        "pred_atom_energy": result.atoms.energy,
        "tsne_1": result.places[:, 0],
        "tsne_2": result.places[:, 1],
    }
    names = (shell_name(shell) for shell in range(result.atoms.counts.shape[1]))
    return columns | {f"count_{name}": values for name, values in zip(names, result.atoms.counts.T, strict=True)}


def core_surface_figures(result: CoreSurface) -> dict[str, Figure]:
    """Map of the features, energies by distance, energies on structures."""
    frames, energy = result.frames, result.atoms.energy
    drawn = drawn_clusters(result)
    parts = [slice(frames.ptr[place], frames.ptr[place + 1]) for place in drawn]
    labels = [
        f"{Path(frames.file[place]).name.split('.')[0]}, frame {frames.number[place]}\n{energy[part].sum():.2f} eV"
        for place, part in zip(drawn, parts, strict=True)
    ]
    return {
        "tsne": plots_core_surface.region_map(result.places, result.region, REGIONS, energy),
        "energy_by_distance": plots_core_surface.energy_by_distance(result.distance, energy, result.radii, REGIONS),
        "structures": plots_core_surface.energies_on_structures(
            [frames.atoms(place) for place in drawn], [energy[part] for part in parts], labels
        ),
    }


def drawn_clusters(result: CoreSurface) -> list[int]:
    """Of the largest size, the clusters of lowest, median and highest predicted energy."""
    sizes = result.frames.sizes
    energy = np.add.reduceat(result.atoms.energy, result.frames.ptr[:-1])
    largest = np.flatnonzero(sizes == sizes.max())
    order = largest[np.argsort(energy[largest], kind="stable")]
    places = np.linspace(0, len(order) - 1, min(DRAWN_CLUSTERS, len(order))).round().astype(int)
    return order[places].tolist()


def make_report(result: CoreSurface, model: DART, model_folder: Path, figures: dict[str, Figure]) -> Report:
    """Everything on a page."""
    first, second = result.radii
    sizes = np.unique(result.frames.sizes)
    which = f"{sizes[0]} atoms" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} atoms"
    report = Report("Core and surface in the eyes of the model")
    report.text(
        f"{len(result.frames):,} clusters of {which}, seen by the model in `{literal(model_folder)}`. An atom is core "
        f"within {first:g} Å of the centre of mass, surface beyond {second:g} Å. Its features are the "
        f"{result.atoms.features.shape[1]} numbers after the last hidden layer of the interaction network."
    )
    for line in _seen_in_training(result, model):
        report.text(line[0].upper() + line[1:] + ".")
    report.figure(
        figures["tsne"],
        f"t-SNE of the features (perplexity {result.settings['perplexity']:g}, seed {result.settings['seed']}), by "
        "region and by the energy of the atom. The distances in such a map mean little: trust the table below.",
    )
    rows = [
        [
            title,
            result.probes[name].balanced_accuracy,
            result.probes[name].fold_spread,
            *result.probes[name].recall,
            result.silhouettes[name],
            result.core_surface_silhouettes[name],
        ]
        for name, title in SPACES.items()
    ]
    map_row = ["t-SNE", *[None] * (2 + len(REGIONS)), result.silhouettes["map"], result.core_surface_silhouettes["map"]]
    recalls = [f"{name} found" for name in REGIONS]
    report.table(
        ["read off", "balanced accuracy", "± folds", *recalls, "silhouette", "core, surface alone"],
        [*rows, map_row],
        f"Logistic regression for the region, cross-validated over {result.settings['num_groups']} groups (each a "
        f"{result.settings['groups']}); chance is 0.333. Silhouettes go from -1 to 1, 0 where regions overlap.",
    )
    names = [f"mean {shell_name(shell)}" for shell in range(result.atoms.counts.shape[1])]
    table = [
        [row["region"], row["atoms"], row["mean_energy_ev"], row["std_energy_ev"], *row["mean_counts"]]
        for row in region_rows(result)
    ]
    report.table(["region", "atoms", "mean energy / eV", "spread / eV", *names], table, "The atoms of each region.")
    report.figure(
        figures["energy_by_distance"],
        "Energy of each atom by its distance from the centre of mass. The model was trained on energies of clusters: "
        "how it shares them among the atoms is its own choice.",
    )
    report.figure(
        figures["structures"],
        "Energies of the atoms of the clusters of lowest, median and highest predicted energy: above whole, below "
        "without the nearer half.",
    )
    return report
