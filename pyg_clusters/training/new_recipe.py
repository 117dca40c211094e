"""Recipes for a user's own frames."""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from textwrap import indent
from typing import Any

import numpy as np
import yaml
from ase.data import chemical_symbols

from pyg_clusters.analysis.descriptor import FALLBACK
from pyg_clusters.analysis.pair_distribution import PairDistribution, pair_distribution
from pyg_clusters.errors import InputError
from pyg_clusters.files import write_text
from pyg_clusters.frames import AtomsFrame, BadFrame, expand_paths, read_atoms
from pyg_clusters.frames.atoms import labels_of
from pyg_clusters.frames.block import arrays_of
from pyg_clusters.frames.checks import list_bad
from pyg_clusters.frames.energy_units import stated_unit
from pyg_clusters.frames.provenance import EARLIER, INITIAL
from pyg_clusters.frames.writing import open_output
from pyg_clusters.nn.extended_huckel import SODIUM
from pyg_clusters.options.training import NewRecipeOptions
from pyg_clusters.terminal import count_of, span

MAX_FRAMES: int = 5000  # maximum number of frames to look at
MANY_GROUPS: int = 10  # smallest number of groups for a split by group, so that each part has several
RELAXED: float = 0.05  # largest force in eV/Å on an atom of a minimum

SUM_RADII, DESCRIPTOR_RADII, WIDTH = (1.33, 2.22), (0.56, 0.74, 0.93, 1.07, 1.22, 1.41, 1.63, 1.93), 0.44
"""Radii and width of the models in bond lengths: those of ``own_forces.yaml`` at a bond length of 2.7 Å."""


@dataclass(frozen=True)
class Findings:
    """Contents of frames that a recipe depends on."""

    target: str  # name of the label
    per_atom: bool  # whether it is a shielding of each atom, not an energy
    unit: str
    forces: str | None  # name of the forces, if there are any
    minima: list[str]  # files of minima without forces, which are zero
    elements: list[int]  # atomic numbers
    group: str | None  # name of the value that groups related frames, if any
    by_group: bool  # whether to split by group rather than at random with copies together
    distribution: PairDistribution
    lines: list[str]  # summary


def new_recipe(options: NewRecipeOptions) -> str:
    """Write a training recipe for files of frames.

    Returns:
        Summary of the frames, and the next command.

    Raises:
        InputError: If a frame cannot be used, or the frames have no label or several labels.
    """
    with open_output(options):
        findings = inspect_frames(options)
        write_text(options.out, recipe_text(findings, options))
    next_step = f"recipe in {options.out}; next: pyg-clusters train {options.out} --out runs/own"
    return "\n".join([*findings.lines, next_step])


def inspect_frames(options: NewRecipeOptions) -> Findings:
    """Find labels, elements, groups and distances of up to :data:`MAX_FRAMES` frames."""
    frames: list[AtomsFrame] = []
    bad: list[BadFrame] = []
    files = expand_paths(options.frames)
    for number, file in enumerate(files):
        left = -(-(MAX_FRAMES - len(frames)) // (len(files) - number))
        read = list(islice(read_atoms([file], on_bad=options.on_bad, fragments=options.fragments), left))
        frames += [frame for frame in read if isinstance(frame, AtomsFrame)]
        bad += [frame for frame in read if isinstance(frame, BadFrame)]
    list_bad(bad)
    if not any(len(frame.atoms) > 1 for frame in frames):
        raise InputError(f"{', '.join(options.frames)}: no cluster of two or more atoms to train on")
    labels = [labels_of(frame.atoms) for frame in frames]
    shapes: dict[str, str] = {}
    for frame, of in zip(frames, labels, strict=True):
        kinds = {name: _kind(value, len(frame.atoms)) for name, value in of.items()}
        shapes |= {name: kind for name, kind in kinds.items() if kind or name not in shapes}
    target = options.target or _target(_own_labels(shapes), options.frames)
    if options.target and shapes.get(target) not in ("energy", "atoms"):
        raise InputError(f"--target {target}: the frames have no such number; they have {_listed(shapes)}")
    vectors = [name for name, kind in _own_labels(shapes).items() if kind == "vector" and "force" in name.lower()]
    of_target = re.compile(re.escape(target).replace("energy", "forces?"), re.IGNORECASE)  # REF_forces of REF_energy
    forces = min(vectors, key=lambda name: (not of_target.fullmatch(name), name != "forces"), default=None)
    per_atom = shapes[target] == "atoms"
    found = [] if per_atom else [stated_unit(file, target) for file in files]
    unit = "ppm" if per_atom else next((stated.name for stated in found if stated is not None), "eV")
    minima = [] if per_atom or forces is None else _minima(frames, labels, forces)
    group = "group" if all("group" in of for of in labels) else None
    groups = {str(of["group"]) if group else frame.file for frame, of in zip(frames, labels, strict=True)}
    elements = sorted({int(number) for frame in frames for number in frame.atoms.numbers})
    sizes = [len(frame.atoms) for frame in frames]
    _, pos, ptr, _, _ = arrays_of([frame.atoms for frame in frames])
    distribution = pair_distribution(pos, ptr)
    values = [_finite(of.get(target), size) / (1 if per_atom else size) for of, size in zip(labels, sizes, strict=True)]
    known = np.concatenate(values)
    if not known.size:
        raise InputError(f"{', '.join(options.frames)}: {target!r} is not a finite number in any frame; fix the frames")
    missing = sum(not of_frame.size for of_frame in values)
    first = "the first " if len(frames) >= MAX_FRAMES else ""
    alone = group is None and len(frames) <= len(groups)  # one frame per file: copies lie in different files
    by_group = len(groups) >= MANY_GROUPS and not alone
    others = [
        name
        for name, kind in _own_labels(shapes).items()
        if kind in ("energy", "atoms") and re.search("energy|shielding", name.lower()) and name != target
    ]
    lines = [
        f"frames     {first}{len(frames):,} of {span(sizes)} atoms",
        f"elements   {', '.join(chemical_symbols[number] for number in elements)}",
        f"label      {target}, {known.min():.4g} to {known.max():.4g} {unit} per atom"  # shows a wrong unit
        + (f"; missing in {count_of(missing, 'frame')} (on_missing: skip leaves them out)" if missing else "")
        + (f"; there {'is' if len(others) == 1 else 'are'} also {', '.join(others)} (--target)" if others else ""),
        f"forces     {forces or 'none'}" + (f"; zero on the minima of {', '.join(minima)}" if minima else ""),
        f"split      {'by group' if by_group else 'random, copies kept together'} ("
        + (f"{len(groups):,} distinct values of group)" if group else f"{count_of(len(groups), 'file')})")
        + ("" if by_group or alone else "; if the frames are of a trajectory, the test error is too low"),
    ]
    return Findings(target, per_atom, unit, forces, minima, elements, group, by_group, distribution, lines)


def _minima(frames: Sequence[AtomsFrame], labels: Sequence[dict[str, Any]], forces: str) -> list[str]:
    """Files without forces whose clusters are all minima, according to the ``fmax`` written by ``generate quench``."""
    largest: dict[str, float] = {}  # force on an atom of a frame without forces, by file
    for frame, of in zip(frames, labels, strict=True):
        if forces not in of:
            largest[frame.file] = max(largest.get(frame.file, 0.0), float(of.get("fmax", np.inf)))
    for file, fmax in largest.items():
        if fmax > RELAXED or any(forces in of and frame.file == file for frame, of in zip(frames, labels, strict=True)):
            raise InputError(
                f"{file}: has frames without the {forces} that others have, and not all are minima; "
                "pyg-clusters label energy computes forces"
            )
    return list(largest)


def _finite(value: Any, num_atoms: int) -> np.ndarray:
    """Values of a label of a frame; none if it is missing or not a finite number."""
    numbers = np.ravel(value) if _kind(value, num_atoms) else np.zeros(0)
    return numbers if np.isfinite(numbers).all() else np.zeros(0)


def _kind(value: object, num_atoms: int) -> str:
    """Kind of a value of a frame: ``energy``, ``atoms``, ``vector``, or something else (empty)."""
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        return ""
    return {(): "energy", (num_atoms,): "atoms", (num_atoms, 3): "vector"}.get(array.shape, "")


def _own_labels(shapes: dict[str, str]) -> dict[str, str]:
    """Values that are neither predictions nor belong to another geometry or an earlier result."""
    return {name: kind for name, kind in shapes.items() if not name.startswith(("pred_", INITIAL, EARLIER))}


def _target(shapes: dict[str, str], files: Sequence[str]) -> str:
    energies = [name for name, kind in shapes.items() if kind == "energy" and "energy" in name.lower()]
    shieldings = [name for name, kind in shapes.items() if kind == "atoms" and "shielding" in name.lower()]
    for name in ("energy", "REF_energy", "binding_energy"):
        if name in energies and not shieldings:
            return name
    if not energies and shapes.get("comment") == "energy":  # a lone number in the comment line
        return "comment"
    if not energies and not shieldings:
        raise InputError(
            f"{files[0]}: the frames have no energy or shielding to train on; they have {_listed(shapes)}; name the "
            "label with --target, or compute it with pyg-clusters label"
        )
    if len(energies + shieldings) != 1:
        many = ", ".join(energies + shieldings)
        raise InputError(f"{files[0]}: the label to train on is ambiguous: there are {many}; name it with --target")
    return (energies + shieldings)[0]


def _listed(shapes: dict[str, str]) -> str:
    return ", ".join(name for name, kind in shapes.items() if kind) or "no numbers"


def recipe_text(findings: Findings, options: NewRecipeOptions) -> str:
    """Text of the recipe."""
    bond = findings.distribution.bond_length
    files = [str(path) for path in options.frames]
    arguments: dict[str, object] = {"root": "processed", "files": files, "target": findings.target}
    arguments |= {"per_atom": True} if findings.per_atom else {"energy_unit": findings.unit}
    if options.fragments == "keep":
        arguments["fragments"] = "keep"
    if options.on_bad == "skip":
        arguments["on_bad"] = "skip"
    if findings.forces and not findings.per_atom:
        arguments["forces"] = True if findings.forces == "forces" else findings.forces
    if findings.minima:
        arguments["minima"] = findings.minima
    if findings.group:
        arguments["group"] = findings.group
    settings = yaml.safe_dump(arguments, default_flow_style=True, sort_keys=False, width=1000, allow_unicode=True)
    split = "split: group  # related frames are in one part"
    if not findings.by_group:
        split = "split: random  # group if the frames are of several trajectories\n  copies_together: true"
    head = "\n".join(f"# {line}" for line in findings.lines)
    return f"""\
# Recipe of pyg-clusters new-recipe; train it with: pyg-clusters train {options.out} --out runs/own
{head}
# bond       {bond:.2f} Å, the highest point of g(r); the radii below follow from it
seed_everything: 0
data:
  dataset:
    class_path: pyg_clusters.datasets.ClusterDataset
    init_args: {settings.strip()}
  {split}
  batch_size: 16
{_model(findings, options.epochs)}
trainer: {{max_epochs: {options.epochs}}}
"""


def _model(findings: Findings, epochs: int) -> str:
    """Section ``model`` of a recipe: training, network, optimiser and schedule."""
    training, optimizer = "EnergyTraining", "Adam, init_args: {lr: 2.0e-3}"
    if findings.per_atom:
        training, optimizer = "ShieldingTraining", "AdamW, init_args: {lr: 1.0e-3, weight_decay: 0.01}"
    elif findings.forces:
        training, optimizer = "ForceTraining", "AdamW, init_args: {lr: 2.0e-3, weight_decay: 0.2}"
    force_weight = "force_weight: 20.0  # in Å\n" if training == "ForceTraining" else ""
    arguments = f"""\
model:
{indent(_network(findings), "  ")}
{force_weight}optimizer: {{class_path: torch.optim.{optimizer}}}
scheduler: {{class_path: torch.optim.lr_scheduler.CosineAnnealingLR, init_args: {{T_max: {epochs}}}}}
average_decay: 0.99"""
    return f"model:\n  class_path: pyg_clusters.training.{training}\n  init_args:\n{indent(arguments, '    ')}"


def smooth_dart_arguments(distribution: PairDistribution, forces: bool) -> dict[str, object]:
    """Radii, width and degree of SmoothDART from g(r), so that they fit any element.

    1. The bond length b is the highest point of g(r). All lengths are multiples of it: sums to 1.33 b (between the
       first two shells of neighbours) and 2.22 b (beyond the second and third), a descriptor of eight radii from 0.56 b
       to 1.93 b, and boundaries of a width w of 0.44 b. An atom depends on the structure within 2.15 b: 5.8 Å for
       gallium or gold, 8 Å for sodium.
    2. Radii r of the descriptor for which :math:`r + w/2` is below the shortest distance of the data are left out.
       Their counts would always be zero in training, so their weights would be arbitrary for shorter distances.
    3. The degree is 5 with forces, and 4 with energies only, which do not determine more weights.
    """
    bond = distribution.bond_length
    seen = [share for share in DESCRIPTOR_RADII if (share + WIDTH / 2) * bond > distribution.smallest_distance]
    return {
        "radii": [round(share * bond, 2) for share in SUM_RADII],
        "width": round(WIDTH * bond, 2),
        "descriptor_radii": [round(share * bond, 2) for share in seen],
        "degree": 5 if forces else 4,
    }


def _network(findings: Findings) -> str:
    """Model of the shipped recipes for such labels.

    For shieldings NodeSchNet with extended Hückel features (sodium) or ShieldingDART; for energies SmoothDART, or
    AlloyDART for several elements without forces.
    """
    bond = findings.distribution.bond_length
    elements = f"\n  elements: {findings.elements}" if len(findings.elements) > 1 else ""
    if findings.per_atom and findings.elements == [SODIUM]:
        return """\
class_path: pyg_clusters.models.NodeSchNet
init_args: {hidden_channels: 64, num_filters: 64, extended_huckel: true}"""
    if findings.per_atom:
        return f"""\
class_path: pyg_clusters.models.ShieldingDART  # beyond the sizes of the data, NodeSchNet is better
init_args:{elements}
  radii: {[round(share * bond, 2) for share in SUM_RADII]}  # in Å
  width: {round(WIDTH * bond, 2)}"""
    if elements and not findings.forces:
        radii = [round(share * bond, 2) for share in FALLBACK]
        with suppress(ValueError):  # too few peaks
            radii = list(findings.distribution.suggested_radii())
        return f"""\
class_path: pyg_clusters.models.AlloyDART
init_args: {{elements: {findings.elements}, radii: {radii}}}"""
    arguments = smooth_dart_arguments(findings.distribution, bool(findings.forces))
    return f"""\
class_path: pyg_clusters.models.SmoothDART
init_args:{elements}
  radii: {arguments["radii"]}  # in Å
  width: {arguments["width"]}
  descriptor_radii: {arguments["descriptor_radii"]}
  degree: {arguments["degree"]}
  hidden_channels: 96"""
