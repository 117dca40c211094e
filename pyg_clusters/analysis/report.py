"""Reports as one self-contained HTML file, with interactive 3D structures by chemiscope."""

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from urllib.parse import quote

import numpy as np
from ase import Atoms
from ase.neighborlist import natural_cutoffs, neighbor_list
from matplotlib.figure import Figure

from pyg_clusters import __version__
from pyg_clusters.analysis.plots import render, save_figure
from pyg_clusters.errors import MissingExtra, printable
from pyg_clusters.files import write_text

MARKS = str.maketrans("*`", "\ue000\ue001")
SHOWN = str.maketrans("\ue000\ue001", "*`")  # mapping of literal markup characters to private-use characters, and back
MISSING = "\N{EN DASH}"  # text of a missing value in a table
LARGE_SVG = 100_000  # maximum size of an SVG in a report in bytes


class Report:
    r"""Report of text, tables and figures, in the order in which they are added, as one HTML file.

    The file is self-contained, works offline, follows the light or dark setting of the browser, and can be printed. All
    text is escaped. The same content always gives the same file.

    Args:
        title: Title of the page.

    Example:
        >>> report = Report("Gallium clusters")
        >>> report.text("## Errors\n\nOn **600** clusters of `test.txt`.")
        >>> report.table(["size", "MAE / kcal/mol"], [[31, 3.2], [32, 4.1]], "Errors by size.")
        >>> report.html().count("<tr>")
        3
    """

    def __init__(self, title: str):
        self.title = title
        self._sections: list[str] = []
        self._figures: dict[str, Figure] = {}

    def text(self, text: str):
        """Add paragraphs, separated by empty lines.

        A paragraph of lines that begin with ``- `` is a list, one that begins with ``## `` is a heading. ``**bold**``
        and backquoted ``code`` are supported; pass names of files and properties through :func:`literal`.
        """
        for paragraph in re.split(r"\n\s*\n", text.strip()):
            self._sections.append(_paragraph(paragraph.strip()))

    def origin(self, command: str):
        """Add the command that writes the report, the date, and the version of the package."""
        self._sections.append(
            f'<p class="origin">Written by <code>{escape(printable(command))}</code> on {date.today().isoformat()} '
            f"with pyg-clusters {__version__}. Frames and atoms are counted from 0.</p>"
        )

    def next_steps(self, files: Mapping[str, str], text: str):
        """Add links to files in the folder of the report with descriptions, and a text on next steps."""
        self.text("## Files and next steps")
        items = (
            f'<li><a href="{quote(name)}">{escape(name)}</a>: {_inline(text)}</li>' for name, text in files.items()
        )
        self._sections.append("<ul>\n" + "\n".join(items) + "\n</ul>")
        self.text(text)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], caption: str):
        """Add a table.

        Args:
            columns: A heading for each column, with its unit.
            rows: A value for each column. Floats are shown with three decimals, small ones with three digits; use a
                string for another format. ``None`` and NaN are shown as a dash.
            caption: Caption of the table.

        Raises:
            ValueError: If a row does not have one value for each column.
        """
        for number, row in enumerate(rows):
            if len(row) != len(columns):
                raise ValueError(f"row {number} of a table has {len(row)} values for {len(columns)} columns")
        classes = [_column_class([row[column] for row in rows]) for column in range(len(columns))]
        head = _row("th", [escape(str(column)) for column in columns], [f'{css} scope="col"' for css in classes])
        body = "\n".join(_row("td", [_cell(value) for value in row], classes) for row in rows)
        self._sections.append(
            f'<div class="table"><table>\n<caption>{escape(caption)}</caption>\n'
            f"<thead>\n{head}\n</thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
        )

    def figure(self, figure: Figure, caption: str, name: str = ""):
        """Embed a figure as SVG, or as PNG if it has so many points that its SVG is large.

        Args:
            figure: Figure, for example from :mod:`pyg_clusters.analysis.plots`.
            caption: Caption; may contain ``**bold**`` and backquoted ``code``.
            name: Name of a PNG in the folder ``figures`` next to the report; none by default.
        """
        if name:
            self._figures[name] = figure
        kind, picture = "image/svg+xml", render(figure, "svg")
        if len(picture) > LARGE_SVG:
            kind, picture = "image/png", render(figure, "png")
        data = base64.b64encode(picture).decode("ascii")
        width, height = (round(96 * inches) for inches in figure.get_size_inches())
        self._sections.append(
            f'<figure>\n<img src="data:{kind};base64,{data}" width="{width}" height="{height}" '
            f'alt="{escape(caption)}">\n<figcaption>{_inline(caption)}</figcaption>\n</figure>'
        )

    def viewer(self, section: str, caption: str):
        """Add interactive 3D structures of :func:`viewer_section`; at most once."""
        self._sections.append(f"<figure>\n{section}\n<figcaption>{_inline(caption)}</figcaption>\n</figure>")

    def html(self) -> str:
        """HTML of the page."""
        return _template("report.html").substitute(title=escape(self.title), body="\n".join(self._sections))

    def write(self, path: str | Path):
        """Write the page atomically, and the named figures next to it."""
        for name, figure in self._figures.items():
            save_figure(figure, Path(path).parent / "figures" / f"{name}.png")
        write_text(path, self.html())


def literal(text: object) -> str:
    r"""Escape a name for :meth:`Report.text`: none of its characters is treated as markup or as a line break.

    Example:
        >>> report = Report("Names")
        >>> report.text("Read from " + literal("**a**\n## b.xyz") + ".")
        >>> "<p>Read from **a**\\n## b.xyz.</p>" in report.html()
        True
    """
    return printable(str(text)).translate(MARKS)


def _paragraph(text: str) -> str:
    if text.startswith("## "):
        return f"<h2>{_inline(text[3:])}</h2>"
    lines = text.splitlines()
    if all(line.lstrip().startswith("- ") for line in lines) and lines:
        items = "\n".join(f"<li>{_inline(line.lstrip()[2:])}</li>" for line in lines)
        return f"<ul>\n{items}\n</ul>"
    return f"<p>{_inline(text)}</p>"


def _inline(text: str) -> str:
    """Escaped text with ``code`` and **bold** parts; code is literal."""
    parts = re.split(r"(`[^`\n]+`)", text)
    return "".join(
        f"<code>{escape(part[1:-1])}</code>"
        if len(part) > 2 and part[0] == part[-1] == "`"
        else re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escape(part))
        for part in parts
    ).translate(SHOWN)


def _row(tag: str, cells: Sequence[str], attributes: Sequence[str]) -> str:
    elements = (f"<{tag}{attribute}>{cell}</{tag}>" for cell, attribute in zip(cells, attributes, strict=True))
    return f"<tr>{''.join(elements)}</tr>"


def _column_class(values: Sequence[object]) -> str:
    numeric = all(value is None or isinstance(value, int | float | np.number) for value in values)
    return ' class="number"' if numeric and values else ""


def _cell(value: object) -> str:
    if not isinstance(value, float | np.floating):
        return MISSING if value is None else escape(printable(str(value)))
    number = float(value)
    if math.isnan(number):
        return MISSING
    return f"{number:.3f}" if number == 0 or abs(number) >= 0.01 else f"{number:.3g}"


MAX_ATOMS: int = 30_000
"""Maximum number of atoms in a viewer, about 6 MB of the page."""

AROUND = 3.5  # radius in Å of the environment of a selected atom

CAMERA, ANGLE, ASPECT = 150.0, 20.0, 1.25
"""Constants of 3Dmol, which draws the structures: distance of the camera in Å, half of the field of view in degrees,
and aspect ratio."""


@dataclass(frozen=True)
class Property:
    """A property of structures, or of their atoms, for the viewer."""

    values: np.ndarray  #: Numbers or names, ``[num_structures]`` or ``[num_atoms]``.
    unit: str = ""  #: Unit of the numbers, if any.
    of_atoms: bool = False  #: Whether there is a value per atom.


def viewer_section(
    atoms: Sequence[Atoms],
    properties: Mapping[str, Property],
    x: str,
    y: str,
    color: str,
    atom_color: str | None = None,
) -> str:
    """Create the HTML of a map with a point for each structure, and the selected structure in interactive 3D.

    The page works offline: it contains chemiscope, about 3 MB (`"Chemiscope: interactive structure-property explorer
    for materials and molecules" <https://doi.org/10.21105/joss.02117>`_, Fraux et al. 2020). All structures are drawn
    at one scale. Bonds are drawn between atoms nearer than 1.2 times the sum of their covalent radii.

    Args:
        atoms: Structures of at most :data:`MAX_ATOMS` atoms in total, see :func:`shown_first`.
        properties: Properties for axes and colours, by name.
        x: Property along the horizontal axis.
        y: Property along the vertical axis.
        color: Property that colours the points.
        atom_color: Property that colours the atoms; by default their element does.

    Raises:
        MissingExtra: If chemiscope is not installed.
    """
    try:
        from chemiscope import create_input, quick_settings

        library = files("chemiscope").joinpath("sphinx/static/chemiscope.min.js").read_text(encoding="utf-8")
    except (ImportError, OSError) as error:
        raise MissingExtra("chemiscope 1.1", "report", "a page with interactive 3D structures") from error
    structures = [_structure(cluster) for cluster in atoms]
    environments = [(n, atom, AROUND) for n, cluster in enumerate(atoms) for atom in range(len(cluster))]
    coloured = properties[atom_color] if atom_color else None
    settings = quick_settings(
        x=x,
        y=y,
        map_settings={"color": {"property": color, "palette": "plasma"}},
        structure_settings=_structure_settings(structures, atom_color, coloured),
    )
    dataset = create_input(
        structures,
        metadata={"name": "Structures"},
        properties={name: _for_chemiscope(value) for name, value in properties.items()},
        environments=environments if coloured else None,
        settings=settings,
    )
    # Escape what would end the script element or start a comment.
    library = library.replace("</script", r"<\/script").replace("<!--", r"<\!--")
    data = json.dumps(dataset, separators=(",", ":")).replace("<", r"\u003c")
    return _template("viewer.html").substitute(library=library, dataset=data)


def _template(name: str) -> Template:
    return Template(Path(__file__).with_name(name).read_text(encoding="utf-8"))


def shown_first(sizes: Sequence[int], max_atoms: int = MAX_ATOMS) -> list[int]:
    """Indices of the structures that fit into a viewer, including the first of each size before the second of any.

    Args:
        sizes: Number of atoms of each structure, ``[num_structures]``.
        max_atoms: Maximum total number of atoms; the first structure is always included.

    Example:
        >>> shown_first([3, 3, 3, 5, 5, 5], max_atoms=16)
        [0, 1, 3, 4]
    """
    seen: dict[int, int] = {}
    order = []
    for index, size in enumerate(sizes):
        seen[size] = seen.get(size, 0) + 1
        order.append((seen[size], index))
    shown: list[int] = []
    total = 0
    for _, index in sorted(order):
        total += sizes[index]
        if shown and total > max_atoms:
            break
        shown.append(index)
    return sorted(shown)


def _structure(atoms: Atoms) -> dict[str, object]:
    pos = (atoms.positions - atoms.positions.mean(axis=0)).round(3)
    first, second = neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=1.2))
    return {
        "size": len(atoms),
        "names": atoms.get_chemical_symbols(),
        **{axis: pos[:, number].tolist() for number, axis in enumerate("xyz")},
        "bonds": [[i, j, 1] for i, j in zip(first.tolist(), second.tolist(), strict=True) if i < j],
    }


def _structure_settings(structures: Sequence[dict], atom_color: str | None, coloured: Property | None) -> dict:
    """Viewer settings with the same camera distance for every structure, far enough for the largest."""
    radius = max(np.linalg.norm([one["x"], one["y"], one["z"]], axis=0).max() for one in structures) + 1.5
    towards = CAMERA - ASPECT * radius / np.tan(np.radians(ANGLE))
    origin, up, eye = ({"x": 0, "y": y, "z": z} for y, z in ((0, 0), (1, 0), (0, towards)))
    camera = {"eye": eye, "center": origin, "up": up, "zoom": towards}
    settings: dict[str, object] = {"keepOrientation": True, "camera": camera}
    if coloured is not None:
        low, high = np.percentile(coloured.values, [1.0, 99.0]).tolist()
        settings["color"] = {"property": atom_color, "palette": "viridis", "min": low, "max": high}
    return settings


def _for_chemiscope(of: Property) -> dict[str, object]:
    values = of.values
    if values.dtype.kind == "f":
        values = np.array([float(f"{value:.6g}") for value in values])
    entry: dict[str, object] = {"target": "atom" if of.of_atoms else "structure", "values": values}
    return entry | ({"units": of.unit} if of.unit else {})
