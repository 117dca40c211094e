"""Common style of all figures, and writing of figures."""

import io
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

from pyg_clusters.files import atomic_write

BLUE, ORANGE, GREEN, GREY = "#2f6db3", "#e07b28", "#3a9156", "#8a8f98"
SHELL_COLORS = (BLUE, ORANGE, GREEN, GREY)
SIZE = (6.4, 4.0)
"""Size of a figure in inches."""
SMALL = 8.5
"""Size of secondary text in points."""
MAX_PANELS: int = 4
"""Maximum number of cluster sizes with a panel each."""


def save_figure(figure: Figure, path: str | Path):
    """Write a figure atomically, in the format of the suffix (png, svg, pdf)."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(render(figure, temporary.suffix.lstrip(".") or "png"))


def render(figure: Figure, file_format: str = "png") -> bytes:
    """Bytes of a figure's file, reproducible for the same data; png at 200 dots per inch."""
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(file_format, {})
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "pyg_clusters", "svg.fonttype": "path"}):
        figure.savefig(buffer, format=file_format, dpi=200, metadata=metadata)
    return buffer.getvalue()


def figure_with_axes(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """Figure with labelled axes."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    tidy(axes, xlabel, ylabel)
    return figure, axes


def tidy(axes: Axes, xlabel: str, ylabel: str):
    """Apply the common style and labels to axes."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e6ea", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel(xlabel, fontsize=10)
    axes.set_ylabel(ylabel, fontsize=10)
    axes.tick_params(labelsize=9, color=GREY)


def legend(axes: Axes, **kwargs):
    """Add a legend with a translucent frame."""
    axes.legend(fontsize=SMALL, framealpha=0.85, edgecolor="none", **kwargs)


def text_box() -> dict[str, object]:
    """Style of a box around text in a figure."""
    return {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": "#c9cdd3", "alpha": 0.9}


def integer_ticks(axes: Axes):
    """Set ticks at integers, for sizes and epochs."""
    axes.xaxis.set_major_locator(MaxNLocator(9, integer=True, min_n_ticks=1))


def plain_log_ticks(axes: Axes):
    """Set ticks at 1, 2, 5 of each decade, as plain numbers."""
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    formatter = ScalarFormatter()
    formatter.set_scientific(False)
    axes.yaxis.set_major_formatter(formatter)
    axes.yaxis.set_minor_formatter(NullFormatter())


def padded_limits(values: np.ndarray) -> tuple[float, float]:
    """Axis limits around values."""
    low, high = float(values.min()), float(values.max())
    padding = 0.05 * (high - low) or 0.05
    return low - padding, high + padding


def bin_edges(values: np.ndarray) -> list[float]:
    """Edges of 10 to 40 bins, depending on the number of values."""
    return np.histogram_bin_edges(values, bins=int(np.clip(np.sqrt(len(values)), 10, 40))).tolist()
