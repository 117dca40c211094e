"""Reports as one self-contained HTML file."""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from datetime import date
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

import numpy as np
from matplotlib.figure import Figure

from pyg_clusters import __version__
from pyg_clusters.analysis.plots import render, save_figure
from pyg_clusters.analysis.viewer import STYLE
from pyg_clusters.errors import printable
from pyg_clusters.files import atomic_write

PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1d2129; --faint: #5d6470; --line: #d9dce1; --page: #ffffff; --code: #f1f3f6; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ec; --faint: #a3a9b4; --line: #3a3f48; --page: #16181d; --code: #252932; }
}
* { box-sizing: border-box; }
body { margin: 2rem auto; max-width: 54rem; padding: 0 1.2rem; color: var(--ink); background: var(--page);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 1.2rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; padding-bottom: .25rem; border-bottom: 1px solid var(--line); }
code { padding: .1em .3em; border-radius: 4px; background: var(--code); font-size: .9em; overflow-wrap: anywhere; }
figure { margin: 1.4rem 0; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; padding: .5rem; border-radius: 6px;
  background: #ffffff; }
a { color: inherit; }
.origin { color: var(--faint); font-size: .9rem; }
figcaption, caption { color: var(--faint); font-size: .9rem; text-align: left; padding: .4rem 0; }
.table { overflow-x: auto; margin: 1.4rem 0; position: relative; left: 50%; transform: translateX(-50%);
  width: max-content; min-width: 100%; max-width: min(76rem, 100vw - 2.4rem); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .28rem .8rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
@media (max-width: 48rem) {
  .table { width: 100%; }
  th, td { padding: .28rem .4rem; }
  th, td:first-child { white-space: normal; }
  caption { max-width: calc(100vw - 2.4rem); }
}
td.number, th.number { text-align: right; }
@media print {
  :root { --ink: #000000; --faint: #444444; --line: #bbbbbb; --page: #ffffff; --code: #f1f3f6; }
  body { margin: 0; max-width: none; font-size: 11pt; }
  figure, tr { break-inside: avoid; }
  h2 { break-after: avoid; }
  .table { overflow-x: visible; }
}
$style</style>
</head>
<body>
<main>
<h1>$title</h1>
$body
</main>
</body>
</html>
""")

MARKS = str.maketrans("*`", "\ue000\ue001")
SHOWN = str.maketrans("\ue000\ue001", "*`")
"""Private characters in place of marks that are literal text, and back."""

MISSING = "\N{EN DASH}"
"""Text of a missing value in a table."""


LARGE_SVG = 100_000
"""Largest size of an SVG in a report in bytes."""


class Report:
    r"""Text, tables and figures in the order in which they are added, written as one HTML file.

    The file is self-contained, needs no network, follows the reader's light or dark setting, and can be printed. All
    text is escaped. The same content gives the same file.

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
        self._style = ""
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
        """Add links to files in the folder of the report with descriptions, and what to do with them."""
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
            name: Name of a PNG in the folder ``figures`` beside the report; none by default.
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
        """Add interactive 3D structures of :func:`~pyg_clusters.analysis.viewer.viewer_section`; at most once."""
        self._sections.append(f"<figure>\n{section}\n<figcaption>{_inline(caption)}</figcaption>\n</figure>")
        self._style = STYLE

    def html(self) -> str:
        """HTML of the page."""
        return PAGE.substitute(title=escape(self.title), style=self._style, body="\n".join(self._sections))

    def write(self, path: str | Path):
        """Write the page atomically, and the named figures beside it."""
        for name, figure in self._figures.items():
            save_figure(figure, Path(path).parent / "figures" / f"{name}.png")
        with atomic_write(path) as temporary:
            temporary.write_text(self.html(), encoding="utf-8")


def literal(text: object) -> str:
    r"""Escape a name for :meth:`Report.text`, so that none of its characters is a mark or ends a line.

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
