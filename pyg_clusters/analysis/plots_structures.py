"""Drawings of clusters."""

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.data.colors import jmol_colors
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure

from pyg_clusters.analysis.plot_style import (
    SMALL,
)


def structure_gallery(atoms: Sequence[Atoms], labels: Sequence[str], columns: int = 5) -> Figure:
    """Clusters as depth-shaded circles, all at one scale, each seen along its shortest principal axis.

    Args:
        atoms: The clusters.
        labels: A line under each of them.
        columns: Most clusters in a row.

    Raises:
        ValueError: If there are no clusters, or the labels are not as many.
    """
    if not atoms or len(atoms) != len(labels):
        raise ValueError(f"a gallery needs clusters and as many labels, got {len(atoms)} and {len(labels)}")
    columns = min(columns, len(atoms))
    rows = -(-len(atoms) // columns)
    figure = Figure(figsize=(max(1.6 * columns, 3.2), 1.8 * rows), layout="constrained")
    views = [view_of(cluster.positions) for cluster in atoms]
    extent = max(np.abs(view[:, :2]).max() for view in views) + 1.6
    for number, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.set_axis_off()
        if number < len(atoms):
            draw_atoms(axes, views[number], atoms[number].numbers)
            axes.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal")
            axes.text(0.5, 0.0, labels[number], transform=axes.transAxes, ha="center", va="top", fontsize=SMALL)
    return figure


def view_of(positions: np.ndarray) -> np.ndarray:
    """Positions along the principal axes, the longest to the right, the shortest towards the viewer."""
    centred = positions - positions.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1]
    largest = np.abs(axes).argmax(axis=0)
    return centred @ (axes * np.sign(axes[largest, range(3)]))


def draw_atoms(axes: Axes, view: np.ndarray, numbers: np.ndarray, colors: np.ndarray | None = None, haze: float = 0.65):
    """Draws atoms, the nearest last; the furthest are hidden by the haze most."""
    order = np.argsort(view[:, 2])
    colors = jmol_colors[numbers[order]] if colors is None else colors[order]
    view, numbers = view[order], numbers[order]
    depth = (view[:, 2] - view[0, 2]) / (np.ptp(view[:, 2]) or 1.0)  # 0 furthest, 1 nearest
    veil = haze * (1.0 - depth[:, None])
    diameter = 1.9 * covalent_radii[numbers]
    circles = EllipseCollection(
        diameter,
        diameter,
        np.zeros(len(view)),
        units="xy",
        offsets=view[:, :2],
        offset_transform=axes.transData,
        facecolors=colors * (1.0 - veil) + veil,
        edgecolors=0.75 * veil * np.ones(3),
        linewidths=0.5,
    )
    axes.add_collection(circles)
