"""Summary of the contents of files of frames, run folders and models."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from ase.data import chemical_symbols

from pyg_clusters.composition import composition_names
from pyg_clusters.errors import InputError
from pyg_clusters.frames import BadFrame, check_block, read_blocks
from pyg_clusters.frames.ase_reader import atom_property
from pyg_clusters.frames.atoms import labels_of
from pyg_clusters.frames.join import NoCluster
from pyg_clusters.frames.paths import holds_structures
from pyg_clusters.inference.run import Run
from pyg_clusters.models.checkpoint import (
    BEST,
    CONFIGURATION,
    available_models,
    ensemble_notes,
    is_ensemble,
    read_configuration,
)
from pyg_clusters.models.training_domain import domain_of
from pyg_clusters.nn.output_scale import reference_energies
from pyg_clusters.options.frames import InfoOptions
from pyg_clusters.terminal import count_of, span

MAX_FORMULAS = 20  # maximum number of compositions listed

UNITS = {"kcal_mol": "kcal/mol", "mev_per_atom": "meV/atom", "mev_per_angstrom": "meV/Å", "ppm": "ppm"}
"""Units at the end of the keys of errors."""

WORDS = {
    **{"val": "validation", "train": "training", "mae": "MAE", "rmse": "RMSE", "num": ""},
    "config": "recipe",
    "epoch": "best epoch (from 0)",
    **{name.lower(): name for name in ("Kolmogorov", "Smirnov", "Spearman", "Wasserstein")},
}
"""Words in place of the parts of keys."""


@dataclass
class Contents:
    """Contents of a path."""

    title: str  # path and size
    values: dict[str, object] = field(default_factory=dict)  # by name
    bad: list[BadFrame] = field(default_factory=list)  # frames that were skipped

    def __str__(self) -> str:
        return "\n".join([self.title, *(f"  {key}: {value}" for key, value in self.values.items())])


def info(options: InfoOptions) -> Iterator[Contents]:
    """Summarise the contents of each path: frames, a run or a model.

    Raises:
        InputError: If a path cannot be read.
    """
    for path in map(Path, options.paths):
        shipped = not path.exists() and str(path) in available_models()
        if (path / "candidates.extxyz").is_file():  # the folder of a screening
            path = path / "candidates.extxyz"
        if path.is_dir() and not any(path.iterdir()):
            raise InputError(f"{path}: the folder is empty")
        elif shipped or (path.is_dir() and (_is_model(path) or not _has_structures(path))):
            yield _model_contents(path, shipped)
        else:
            yield _frame_contents(path, options.on_bad)


def _is_model(folder: Path) -> bool:
    """Whether a folder holds a run, an ensemble or a saved model."""
    return is_ensemble(folder) or any((folder / name).exists() for name in ("config.yaml", CONFIGURATION, BEST))


def _has_structures(folder: Path) -> bool:
    files = (entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith("."))
    return any(map(holds_structures, files))


def _model_contents(path: Path, shipped: bool) -> Contents:
    """Parameters, training set and errors of a model."""
    run = Run(path)
    model, ensemble, configuration = run.model, run.is_ensemble, read_configuration(run.folder)
    name = str(model) if ensemble else type(model).__name__
    parameters = sum(weights.numel() for weights in model.parameters())
    contents = Contents(f"{path}: {name}, {parameters:,} parameters")
    values = contents.values
    values |= {key: _in_words(value) for key, value in configuration["init_args"].items() if value is not None}
    if (domain := domain_of(model)) is not None:
        charge = domain.electronic_state[0]
        state = f", of charge {charge:+d}" if charge else ""
        values["trained on"] = f"{domain.symbols} clusters of {span(domain.size_range)} atoms{state}"
    if references := reference_energies(model):
        values["reference energies"] = ", ".join(f"{symbol} {energy:.10g} eV" for symbol, energy in references.items())
    if ensemble:
        values["members"] = ", ".join(member.path.name if shipped else str(member.path) for member in run.members)
    notes = ensemble_notes(path) if ensemble else run.notes
    values |= {_name(key): _in_words(value) for key, value in notes.items()}
    values |= {_name(f"test_{key}"): _in_words(value) for key, value in (run.metrics or {}).items()}
    return contents


def _frame_contents(path: Path, on_bad: Literal["stop", "skip"]) -> Contents:
    """Sizes, elements and labels of frames."""
    sizes: Counter[int] = Counter()
    formulas: Counter[str] = Counter()
    elements: Counter[int] = Counter()
    periodic = joined = 0
    no_clusters: list[BadFrame] = []
    refused: list[BadFrame] = []
    bad: list[BadFrame] = []
    labels: dict[str, Label] = {}
    for block in read_blocks(path, with_atoms=True, on_bad="skip", report=False):
        for frame in block.unreadable:
            if not isinstance(frame, NoCluster) and on_bad == "stop":
                raise frame.error
            (no_clusters if isinstance(frame, NoCluster) else bad).append(frame)
        for atoms in block.atoms or ():
            for name, value in labels_of(atoms).items():
                labels.setdefault(name, Label()).add(value, atom_property(atoms, name) is not None)
        sizes.update(block.sizes.tolist())
        formulas.update(composition_names(block.z, block.ptr).tolist())
        elements.update(block.z.tolist())
        periodic += int(block.periodic.sum())
        joined += block.num_joined
        refused += check_block(block.select(block.sizes > 1), on_bad="skip")[1]
    contents = Contents(f"{path}: {count_of(sizes.total() + len(no_clusters), 'frame')}", bad=bad)
    values = contents.values
    if no_clusters:
        reason = no_clusters[0].reason
        values["no isolated clusters"] = f"{len(no_clusters)}, first frame {no_clusters[0].number}: {reason}"
    if not sizes:
        return contents
    values["atoms"] = span(sizes)
    values["frames per size"] = ", ".join(f"{size}: {count}" for size, count in sorted(sizes.items()))
    if len(elements) > 1:
        text = ", ".join(f"{name}: {count}" for name, count in formulas.most_common(MAX_FORMULAS))
        values["frames per composition"] = text + (", ..." if len(formulas) > MAX_FORMULAS else "")
    values["elements"] = ", ".join(f"{chemical_symbols[z]} ({count:,} atoms)" for z, count in elements.items())
    values |= {name: label.describe(sizes.total()) for name, label in sorted(labels.items())}
    if refused:
        values["rejected by other commands"] = f"{count_of(len(refused), 'frame')}, the first is {refused[0]}"
    if periodic:
        values["periodic cells"] = f"in {periodic:,} frames, of which {joined:,} are joined across their faces"
    return contents


def _name(key: str) -> str:
    """Key of a note in words, with the unit of an error in parentheses.

    Example:
        >>> _name("val_hot_force_mae_mev_per_angstrom"), _name("test_overlap_10_ppm"), _name("test_num_clusters")
        ('validation hot force MAE (meV/Å)', 'test overlap 10 ppm', 'test clusters')
    """
    for name, unit in UNITS.items():
        if key.endswith(f"_{name}") and not key[-len(name) - 2].isdigit():
            return f"{_name(key.removesuffix(f'_{name}'))} ({unit})"
    return " ".join(filter(None, (WORDS.get(word, word) for word in key.split("_"))))


def _in_words(value: object) -> str:
    """Format a configuration value: lists without brackets, long lists by length, booleans as yes or no,
    and six digits of a number.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_in_words(each)}" for key, each in value.items())
    if isinstance(value, list):
        return f"{len(value):,} (not listed)" if len(value) > 20 else ", ".join(map(_in_words, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None else str(value)


@dataclass
class Label:
    """Number of frames, range and shape of a label."""

    frames: int = 0
    lowest: float = float("inf")
    highest: float = float("-inf")
    example: str = ""
    shape: tuple[int, ...] = ()
    per_atom: bool = True  # whether the first axis is that of the atoms, in all frames
    invalid: int = 0  # frames in which a number is not finite

    def add(self, value: object, per_atom: bool):
        try:
            array = np.asarray(value)
        except ValueError:  # lists of different lengths
            array = np.asarray(str(value))
        self.frames += 1
        self.per_atom &= per_atom
        self.shape = array.shape
        if array.dtype.kind in "iuf" and array.size:
            finite = array[np.isfinite(array)].astype(float)
            self.invalid += finite.size < array.size
            self.lowest = min(self.lowest, float(finite.min(initial=np.inf)))
            self.highest = max(self.highest, float(finite.max(initial=-np.inf)))
        elif not self.example:
            self.example = str(value)

    def describe(self, num_frames: int) -> str:
        each = " × ".join(map(str, self.shape[1:] if self.per_atom else self.shape))
        kind = (f"{each} values " if each else "") + ("per atom" if self.per_atom else "per frame")
        values = f"{self.lowest:.6g} to {self.highest:.6g}" if self.lowest <= self.highest else repr(self.example)
        missing = f"; in {count_of(self.frames, 'frame')} only" if self.frames < num_frames else ""
        invalid = f"; not finite in {count_of(self.invalid, 'frame')}" if self.invalid else ""
        return f"{values} ({kind}{missing}{invalid})"


SECTIONS = ("Training data", "Limits")  # sections of the card of a pretrained model


def model_card(run: Run) -> list[str]:
    """Describe a model in paragraphs: elements, sizes, labels and their level of theory, test error and limits.

    Example:
        >>> model_card(Run("gallium"))[0]
        'DART, trained on Ga clusters of 31 to 70 atoms. MAE on its test set: 3.95 kcal/mol per cluster.'
    """
    text = type(run.model).__name__
    if (domain := domain_of(run.model)) is not None:
        text += f", trained on {domain.symbols} clusters of {span(domain.size_range)} atoms"
    if run.target:
        text += f", on the label `{run.target}`"
    text += "." if run.test_error is None else f". MAE on its test set: {run.test_error:.2f} kcal/mol per cluster."
    paragraphs = run.card.read_text(encoding="utf-8").split("\n\n") if run.card.is_file() else []
    shown = [part for part in paragraphs if re.match(rf"\*\*({'|'.join(SECTIONS)})\.\*\*", part)]
    own = "The level of theory is that of the training labels; the model is valid close to its training set only."
    return [text, *(" ".join(part.split()) for part in shown or [own])]
