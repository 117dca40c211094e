"""What predictions depend on, so that a run goes on only where it is the same."""

import hashlib
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path

from torch import nn

from pyg_clusters.frames import BlockLog
from pyg_clusters.frames.read_options import ReadOptions
from pyg_clusters.frames.resume import input_settings
from pyg_clusters.inference.predictor import Predictor
from pyg_clusters.options.common import Fragments


def settings_of(predictor: Predictor, paths: Sequence[Path], wanted: ReadOptions) -> dict[str, object]:
    """Model and input of predictions, in values that JSON knows; input files by name and content."""
    settings: dict[str, object] = {
        "model": fingerprint(predictor.model),
        "fragments": wanted.fragments,
        "block_size": wanted.block_size,
        "properties": [*wanted.properties, *wanted.atom_properties],
    }
    topology = [] if wanted.topology is None else [wanted.topology]
    return settings | input_settings([*paths, *topology])


def score_log(
    folder: Path,
    predictor: Predictor,
    paths: Iterable[str | PathLike],
    *,
    properties: Sequence[str] = (),
    fragments: Fragments = "refuse",
    overwrite: bool = False,
) -> BlockLog:
    """Where energies of finished blocks are kept, for :func:`~pyg_clusters.inference.scoring.score_files`.

    Args:
        folder: It is there as long as the work is not finished.
        predictor: Of the model.
        paths: The files that are scored.
        properties: Values per frame that are read along.
        fragments: What is done with a periodic frame that stays in several pieces.
        overwrite: Begin anew.

    Raises:
        InputError: If the folder holds the energies of another run.
    """
    wanted = ReadOptions(tuple(properties), fragments=fragments)
    settings = settings_of(predictor, [Path(path) for path in paths], wanted)
    return BlockLog(folder, settings, overwrite=overwrite)


def fingerprint(model: nn.Module) -> str:
    """A hash of the class of a model, how it and its parts print, and its weights."""
    found = hashlib.sha256(f"{type(model).__name__} {model} {list(model.children())}".encode())
    for name, weight in model.state_dict().items():
        found.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        found.update(weight.detach().cpu().contiguous().flatten().numpy().tobytes())
    return found.hexdigest()[:16]
