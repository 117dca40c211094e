"""Scoring by the engine that is asked for, in this process or on Ray, that resumes after finished parts."""

import hashlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from pyg_clusters.errors import InputError
from pyg_clusters.frames import Frames, Parts, Shard
from pyg_clusters.frames.resume import input_settings
from pyg_clusters.inference.flags import OutOfRangeFlagger
from pyg_clusters.inference.prediction import Prediction
from pyg_clusters.inference.predictor import Predictor
from pyg_clusters.inference.ray_engine import score_on_ray
from pyg_clusters.inference.scoring import ScoredBlock, checked, flags_of, score_frames
from pyg_clusters.options.common import EngineOptions

T = TypeVar("T")


def score_by_engine(
    predictor: Predictor,
    frames: Frames,
    options: EngineOptions,
    *,
    each: Callable[[ScoredBlock], T],
    start: tuple[int, int] = (0, 0),
    shard: Shard | None = None,
    trained: OutOfRangeFlagger | None = None,
) -> Iterator[T]:
    """Score blocks by the local engine or on Ray.

    Args:
        predictor: Predictor of the model; on the CPU for Ray.
        frames: Frames to score.
        options: The engine; for Ray its device and address.
        each: Function of each scored block whose results are returned, in the order of the blocks.
        start: Position of the first block.
        shard: Part of the blocks; all by default.
        trained: Training set that the frames are compared with.

    Raises:
        InputError: If a file or a frame cannot be used.
    """
    if options.engine == "ray":
        return score_on_ray(
            predictor,
            frames,
            each=each,
            start=start,
            shard=shard,
            trained=trained,
            device=options.device,
            address=options.address,
        )
    return map(each, score_frames(predictor, frames, start=start, shard=shard, trained=trained))


def score_resumably(
    predictor: Predictor,
    frames: Frames,
    parts: Parts,
    options: EngineOptions,
    trained: OutOfRangeFlagger | None = None,
) -> Iterator[ScoredBlock]:
    """Score all blocks; predictions of finished parts are not computed again, and those of the others are added.

    Args:
        predictor: Predictor of the model; on the CPU for Ray.
        frames: Frames to score.
        parts: Finished parts, by the settings of :func:`job_settings`.
        options: The engine.
        trained: Training set that the frames are compared with.

    Raises:
        InputError: If a file or a frame cannot be used.
    """
    start = parts.next_position
    yield from _finished(predictor, frames, parts, trained)
    for block in score_by_engine(predictor, frames, options, each=_whole, start=start, trained=trained):
        parts.add(block.frames.place, len(block.frames), _prediction_bytes(block.prediction), block.bad)
        yield block


def _whole(block: ScoredBlock) -> ScoredBlock:
    return block


def _finished(
    predictor: Predictor, frames: Frames, parts: Parts, trained: OutOfRangeFlagger | None
) -> Iterator[ScoredBlock]:
    """Frames of the finished parts, read again, with the predictions of the parts."""
    model, dtype = type(predictor.model).__name__, np.dtype(predictor.dtype_name)
    if not parts.num_parts:
        return
    blocks = checked(frames.blocks(report=False), predictor, frames.on_bad)
    for (part, data), (block, bad) in zip(parts, blocks, strict=False):
        if part.position != block.place or part.num_frames != len(block):
            raise InputError(f"{block.file} has changed since the run was started; pass --overwrite to start again")
        values = torch.from_numpy(np.frombuffer(data, dtype=dtype).copy())
        values, spread = values.view(2, values.numel() // 2) if predictor.gives_spread else (values, None)
        flags = None if trained is None else flags_of(block, trained)
        yield ScoredBlock(block, Prediction(values, len(block), len(block.z), model, spread), bad, flags)


def _prediction_bytes(prediction: Prediction) -> bytes:
    """Values, then spreads if there are any."""
    columns = (prediction.values, prediction.spread)
    return b"".join(column.numpy().tobytes() for column in columns if column is not None)


def job_settings(predictor: Predictor, frames: Frames) -> dict[str, object]:
    """Model and input that predictions depend on, as JSON has them; input files by name and content."""
    topology = frames.wanted.topology
    return {
        "model": fingerprint(predictor.model),
        "fragments": frames.wanted.fragments,
        "block_size": frames.wanted.block_size,
        **input_settings([*frames.paths, *([] if topology is None else [topology])]),
    }


def fingerprint(model: nn.Module) -> str:
    """Hash of the class of a model, of how it and its parts print, and of its weights."""
    digest = hashlib.sha256(f"{type(model).__name__} {model} {list(model.children())}".encode())
    for name, weight in model.state_dict().items():
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().numpy().tobytes())
    return digest.hexdigest()[:16]
