"""``pyg-clusters analyse``."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from pyg_clusters.analysis import plots_core_surface
from pyg_clusters.analysis.core_surface import (
    REGIONS,
    AtomicFeatures,
    Probe,
    atomic_features,
    check_regions,
    feature_map,
    linear_probe,
    regions,
    silhouette,
)
from pyg_clusters.analysis.descriptor import shell_name
from pyg_clusters.analysis.plot_style import save_figure
from pyg_clusters.analysis.report import Report
from pyg_clusters.cli.frame_sets import FrameSet, parse_radii, read_set
from pyg_clusters.cli.options import add_frame_options
from pyg_clusters.cli.parsing import parse, verb_parser
from pyg_clusters.cli.predict import list_bad
from pyg_clusters.cli.runs import default_device
from pyg_clusters.cli.sizes import parse_sizes
from pyg_clusters.errors import InputError
from pyg_clusters.files import replacing
from pyg_clusters.frames import write_table
from pyg_clusters.inference.predictor import usable_device
from pyg_clusters.models import DART
from pyg_clusters.models.checkpoint import load_model

DRAWN_CLUSTERS = 3
"""Clusters whose atoms are coloured by their energies in the report."""

SPACES = {
    "features": "features of the network",
    "counts": "shell counts alone",
    "features and counts": "features and counts",
}
"""What the regions are read off, and how the report calls it."""


@dataclass
class CoreSurface:
    """Core and surface of a set of clusters as a model sees them.

    Attributes:
        frames: The clusters.
        radii: Where the core ends and the surface begins, distances from the centre of mass in Å.
        region: Region of each atom, 0 to 2, ``[num_atoms]``.
        distance: From the centre of mass in Å ``[num_atoms]``.
        atoms: What the model knows of them.
        places: Map of the features by t-SNE ``[num_atoms, 2]``.
        probes: How well the regions are read off each of :data:`SPACES` in clusters left out.
        silhouettes: Silhouette of the three regions in each space, and in the map.
        core_surface_silhouettes: The same for the atoms of core and surface alone.
        settings: Perplexity, seed, groups.
    """

    frames: FrameSet
    radii: tuple[float, float]
    region: np.ndarray
    distance: np.ndarray
    atoms: AtomicFeatures
    places: np.ndarray
    probes: dict[str, Probe]
    silhouettes: dict[str, float]
    core_surface_silhouettes: dict[str, float]
    settings: dict[str, object]


def run(argv: Sequence[str]):
    """Runs one of the analyses of a trained model."""
    name = next((argument for argument in argv if not argument.startswith("-")), None)
    if name is None or name not in ANALYSES:
        parser = verb_parser(
            "analyse",
            f"What a trained model makes of clusters. Analyses: {', '.join(ANALYSES)}; each tells its arguments by "
            "pyg-clusters analyse NAME --help.",
            "pyg-clusters analyse core-surface runs/dart gallium --sizes 70 --out core_surface",
        )
        parser.add_argument("name", type=str, help=", ".join(ANALYSES))
        if name is None:
            parse(parser, argv)
        raise InputError(f"unknown analysis {name!r}; there are {', '.join(ANALYSES)}")
    rest = list(argv)
    rest.remove(name)
    ANALYSES[name](rest)


def core_surface(argv: Sequence[str]):
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

    model = load_model(options.model)
    if type(model) is not DART:
        raise InputError(f"{options.model}: a {type(model).__name__} has no atomic energies and features; give a DART")
    frames = read_set(
        options.frames,
        properties=[options.group] if options.group else [],
        sizes=parse_sizes(options.sizes) if options.sizes else None,
        atomic_numbers=model.domain.atomic_numbers if model.domain.known else None,
        on_bad=options.on_bad,
        ignore_cell=options.ignore_cell,
    )
    list_bad(frames.bad)
    device = usable_device(options.device or default_device())
    radii = _two_radii(model, options.radii)
    result = analyse(model.to(device), frames, radii, options.perplexity, options.seed, options.group)
    write_results(result, model, options.model, options.out)
    print("\n".join(summary_lines(result, model)))
    print(f"table, figures and report in {options.out}")


ANALYSES = {"core-surface": core_surface}
"""The analyses by name."""


def _two_radii(model: DART, text: str | None) -> tuple[float, float]:
    radii = model.radii[:2] if text is None else parse_radii(text)
    if len(radii) != 2:
        what = "the model has one shell radius" if text is None else f"--radii {text} are {len(radii)}"
        raise InputError(f"core and surface need two radii, but {what}: give --radii as in 3.49,6.3")
    return radii[0], radii[1]


def analyse(
    model: DART,
    frames: FrameSet,
    radii: tuple[float, float],
    perplexity: float = 30.0,
    seed: int = 0,
    group: str | None = None,
) -> CoreSurface:
    """Compares the regions of the atoms with what the model knows of them.

    Args:
        model: A trained DART.
        frames: Clusters of elements that it knows.
        radii: Where the core ends and the surface begins, distances from the centre of mass in Å.
        perplexity: Of t-SNE.
        seed: Of t-SNE, and of the drawing of atoms for silhouettes of more than 10,000.
        group: Property of the frames: those that share it are kept together in the folds. By default each cluster is
            a group of its own.

    Raises:
        InputError: If there is no atom in one of the regions, or there are too few clusters.
    """
    z, pos, ptr = (torch.from_numpy(values) for values in (frames.z, frames.pos, frames.ptr))
    region, distance = regions(z, pos, ptr, radii)
    check_regions(region)
    atoms = atomic_features(model, z, pos, ptr)
    labels = np.arange(len(frames)) if group is None else np.unique(frames.properties[group], return_inverse=True)[1]
    groups = np.repeat(labels, frames.sizes)
    spaces = {
        "features": atoms.features,
        "counts": atoms.counts.astype(float),
        "features and counts": np.column_stack([atoms.features, atoms.counts]),
    }
    probes = {name: linear_probe(values, region, groups) for name, values in spaces.items()}
    places = feature_map(atoms.features, perplexity, seed)
    spaces["map"] = places
    ends = region != REGIONS.index("between")
    return CoreSurface(
        frames=frames,
        radii=radii,
        region=region,
        distance=distance,
        atoms=atoms,
        places=places,
        probes=probes,
        silhouettes={name: silhouette(values, region, seed) for name, values in spaces.items()},
        core_surface_silhouettes={
            name: silhouette(values[ends], region[ends], seed) for name, values in spaces.items()
        },
        settings={
            "perplexity": perplexity,
            "seed": seed,
            "groups": group or "cluster",
            "num_groups": len(np.unique(labels)),
        },
    )


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
    with replacing(folder / "core_surface.json") as path:
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
        "file": np.repeat(frames.file, sizes),
        "frame": np.repeat(frames.number, sizes),
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
        f"{len(result.frames):,} clusters of {which}, seen by the model in `{model_folder}`. An atom is core within "
        f"{first:g} Å of the centre of mass, surface beyond {second:g} Å. Its features are the "
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
