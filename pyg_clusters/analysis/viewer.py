"""Interactive 3D structures in a self-contained page, by chemiscope."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template

import numpy as np
from ase import Atoms
from ase.neighborlist import natural_cutoffs, neighbor_list

from pyg_clusters.errors import MissingExtra

MAX_ATOMS: int = 30_000
"""Maximum number of atoms in a viewer, about 6 MB of the page."""

SECTION = Template("""\
<div class="viewer">
<div class="viewer-map"><div id="viewer-meta" hidden></div><div id="viewer-map"></div></div>
<div class="viewer-structure"><div id="viewer-structure"></div><div id="viewer-info"></div></div>
</div>
<p id="viewer-warning" hidden></p>
<noscript><p>The structures need JavaScript.</p></noscript>
<script>$library</script>
<script>
(async () => {
  const note = document.getElementById("viewer-warning");
  const tell = (message) => { note.textContent = message; note.hidden = false; };
  const nameButtons = (root, part) => {
    for (const element of [root, ...root.querySelectorAll("*")]) {
      if (element.tagName === "BUTTON" && !element.textContent.trim() && !element.ariaLabel)
        element.setAttribute("aria-label", element.title || "Settings of the " + part);
      if (element.shadowRoot) nameButtons(element.shadowRoot, part);
    }
  };
  const warnings = new Chemiscope.Warnings();
  warnings.addHandler(tell);
  const places = {meta: "viewer-meta", map: "viewer-map", structure: "viewer-structure", info: "viewer-info"};
  try {
    window.viewer = await Chemiscope.DefaultVisualizer.load(places, $dataset, warnings);
    const nameAll = () => Object.entries({map: "map", structure: "structure", info: "selection"}).forEach(
      ([id, part]) => nameButtons(document.getElementById("viewer-" + id), part));
    nameAll();  // and again for buttons that the viewer adds later, of which it sends no event
    setTimeout(nameAll, 500);
    document.addEventListener("click", () => setTimeout(nameAll, 500));
  } catch (error) {
    tell("The structures cannot be shown here: " + error.message);
    throw error;
  }
})();
</script>""")

STYLE = """\
.viewer { display: flex; flex-wrap: wrap; gap: .8rem; width: min(76rem, 100vw - 2.4rem); margin: 1.4rem 0 .4rem;
  margin-left: calc(50% - min(38rem, 50vw - 1.2rem)); padding: .6rem; border-radius: 6px; background: #ffffff;
  color: #1d2129; color-scheme: light; }
.viewer > div { flex: 1 1 22rem; min-width: 0; height: 34rem; display: flex; flex-direction: column; }
#viewer-map, #viewer-structure, #viewer-map > div:first-child { flex: 1; min-height: 0; }
#viewer-map { display: flex; flex-direction: column; }
#viewer-map > div:first-child { height: auto !important; }
#viewer-warning { color: var(--faint); font-size: .9rem; }
@media print { .viewer { width: 100%; margin-left: 0; break-inside: avoid; } }
"""

AROUND = 3.5
"""Radius in Å of the environment of a selected atom."""

CAMERA, ANGLE, ASPECT = 150.0, 20.0, 1.25
"""Constants of 3Dmol, which draws the structures: distance of the camera in Å, half of the field of view in degrees,
and aspect ratio."""


@dataclass(frozen=True)
class Property:
    """A property of structures, or of their atoms, for the viewer.

    Attributes:
        values: Numbers or names, ``[num_structures]`` or ``[num_atoms]``.
        unit: Unit of the numbers, if any.
        of_atoms: Whether there is a value per atom.
    """

    values: np.ndarray
    unit: str = ""
    of_atoms: bool = False


def viewer_section(
    atoms: Sequence[Atoms],
    properties: Mapping[str, Property],
    x: str,
    y: str,
    color: str,
    atom_color: str | None = None,
) -> str:
    """HTML of a map with a point for each structure, and of the selected structure in interactive 3D.

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
    return SECTION.substitute(library=library, dataset=data)


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
    """Settings that place the camera at the same distance from every structure, far enough for the largest."""
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
