"""Scoring of frames in this process or on the actors of Ray Data, with resumption after finished parts."""

from __future__ import annotations

import logging
import os
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import nn

from pyg_clusters.concurrency import LOST_AT_MOST, ray_cluster
from pyg_clusters.errors import InputError
from pyg_clusters.frames import Frames, Parts, Shard
from pyg_clusters.frames.join import warn_of_joined
from pyg_clusters.frames.reader import Piece
from pyg_clusters.inference.flags import OutOfRangeFlagger
from pyg_clusters.inference.predictor import Prediction, Predictor
from pyg_clusters.inference.scoring import ScoredBlock, checked, score_frames
from pyg_clusters.options import EngineOptions

T = TypeVar("T")

BLOCKS_OF_PIECE: int = 16  # blocks of a piece: some seconds of work for a processor core


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
    """Score blocks of frames in this process or on Ray.

    With Ray, the files and the working directory must be the same on all nodes. Uncompressed text files, stores and
    trajectories are distributed over the workers; any other file is read by one worker. If a worker is lost, the others
    repeat its work.

    Args:
        predictor: Predictor of the model; on the CPU for Ray.
        frames: Frames to score.
        options: Engine. On Ray, each worker uses one GPU or one processor core; GPUs are the default if the cluster has
            any. The default address is ``RAY_ADDRESS``; if it is not set, a cluster is started on this machine.
        each: Function applied to each scored block in the worker. For Ray it must be a module-level function or a
            :func:`functools.partial` of one.
        start: Position of the first block.
        shard: Part of the blocks; all by default.
        trained: Range of the training set, used to flag frames.

    Yields:
        Results of ``each``, in the order of the blocks.

    Raises:
        MissingExtra: If Ray is not installed.
        InputError: If there is no such cluster, workers are lost repeatedly, or a file or a frame cannot be used.
    """
    if options.engine == "local":
        yield from map(each, score_frames(predictor, frames, start=start, shard=shard, trained=trained))
        return
    model, transform = predictor.model, predictor.transform
    with ray_cluster(options.address) as ray:
        device = _device(ray, options.device)
        job = _Job(frames, model, transform, device, each, start, shard, trained, os.getcwd())
        yield from _answers(ray, job, _pieces(ray, job))


def score_resumably(
    predictor: Predictor, frames: Frames, parts: Parts, options: EngineOptions, trained: OutOfRangeFlagger | None = None
) -> Iterator[ScoredBlock]:
    """Score all blocks, using the predictions of finished parts and adding those of new blocks to the parts.

    The parts must have the settings of :func:`~pyg_clusters.inference.scoring.job_settings`. For the other arguments
    and the errors, see :func:`score_by_engine`.
    """
    start = parts.next_position
    yield from _finished(predictor, frames, parts, trained)
    for block in score_by_engine(predictor, frames, options, each=_whole, start=start, trained=trained):
        columns = (block.prediction.values, block.prediction.spread)
        data = b"".join(column.numpy().tobytes() for column in columns if column is not None)
        parts.add(block.frames.position, len(block.frames), data, block.bad)
        yield block


def _whole(block: ScoredBlock) -> ScoredBlock:
    return block


def _finished(
    predictor: Predictor, frames: Frames, parts: Parts, trained: OutOfRangeFlagger | None
) -> Iterator[ScoredBlock]:
    """Read the frames of the finished parts again, and combine them with the stored predictions."""
    model, dtype = type(predictor.model).__name__, np.dtype(predictor.dtype_name)
    if not parts.num_parts:
        return
    blocks = checked(frames.blocks(report=False), predictor, frames.on_bad)
    for (part, data), (block, _) in zip(parts, blocks, strict=False):
        if part.bad and frames.on_bad == "stop":
            raise part.bad[0].error
        block = block.select(~np.isin(block.number, [frame.number for frame in part.bad]))
        if part.position != block.position or part.num_frames != len(block):
            raise InputError(f"{block.file} has changed since the run was started; pass --overwrite to start again")
        values = torch.from_numpy(np.frombuffer(data, dtype=dtype).copy())
        values, spread = values.view(2, values.numel() // 2) if predictor.gives_spread else (values, None)
        flags = trained.flags(block.z, block.pos, block.ptr) if trained else None
        yield ScoredBlock(block, Prediction(values, len(block), len(block.z), model, spread), list(part.bad), flags)


@dataclass(frozen=True)
class _Job(Generic[T]):
    """Settings of the Ray actors."""

    frames: Frames
    model: nn.Module
    transform: Callable | None
    device: str
    each: Callable[[ScoredBlock], T]
    start: tuple[int, int]
    shard: Shard | None
    trained: OutOfRangeFlagger | None
    folder: str


@dataclass(frozen=True)
class _Answer(Generic[T]):
    """Result of a block; the last result of a piece has no position."""

    position: tuple[int, int] | None = None
    result: T | None = None
    warnings: tuple[tuple[type[Warning], str], ...] = ()
    error: str | None = None
    frames: int = 0
    joined: int = 0


def _device(ray: Any, device: str | None) -> str:
    has_gpu = ray.cluster_resources().get("GPU", 0) >= 1
    if device is None:
        return "cuda" if has_gpu else "cpu"
    kind = torch.device(device).type
    if kind == "cuda" and not has_gpu:
        raise InputError(f"--device {device}: no node of the Ray cluster has a GPU; use --device cpu")
    return kind


def _pieces(ray: Any, job: _Job) -> list[Piece]:
    """Divide the files into pieces, in order, on the workers."""
    blocks = BLOCKS_OF_PIECE

    def of_file(index: int) -> list[Piece]:
        _enter(job.folder)
        return job.frames.pieces(blocks, index)

    plan = ray.remote(num_cpus=1, max_retries=LOST_AT_MOST)(of_file)
    parts = [plan.remote(index) for index in range(job.start[0], len(job.frames.paths))]
    try:
        return [piece for part in parts for piece in ray.get(part)]
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise InputError(
            f"the files could not be partitioned: {type(error).__name__}; start the same command again"
        ) from error


def _enter(folder: str):
    try:
        os.chdir(folder)
    except OSError as error:
        raise InputError(
            f"{folder}: no such folder on a node of the Ray cluster; use one that all nodes share"
        ) from error


def _answers(ray: Any, job: _Job[T], pieces: list[Piece]) -> Iterator[T]:
    """Yield the results of all blocks in order; the work of lost workers is repeated."""
    lost = frames = joined = 0
    while pieces:
        try:
            for row in _dataset(ray, job, pieces).iter_rows():
                answer: _Answer[T] = pickle.loads(row["answer"])
                for category, text in answer.warnings:
                    warnings.warn(text, category, stacklevel=2)
                if answer.error is not None:
                    raise InputError(answer.error)
                if answer.position is None:
                    pieces = pieces[1:]
                else:
                    frames, joined = frames + answer.frames, joined + answer.joined
                    yield answer.result  # type: ignore[misc]
                    job = replace(job, start=(answer.position[0], answer.position[1] + 1))
                lost = 0
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if cause is not None and not isinstance(cause, ray.exceptions.RayError):
                raise cause from error
            lost += 1
            if lost == LOST_AT_MOST:
                raise InputError(
                    f"{lost} workers were lost in a row ({type(error).__name__}); check the nodes and their memory"
                ) from error
            warnings.warn(f"a Ray worker was lost ({type(error).__name__}); the others repeat its work", stacklevel=2)
    warn_of_joined(joined, frames)


def _dataset(ray: Any, job: _Job, pieces: list[Piece]) -> Any:
    """Results of the workers, in order, as a lazy data set."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    resources = ray.cluster_resources()
    workers = max(1, int(resources.get("GPU" if job.device == "cuda" else "CPU", 1)))
    rows = ray.data.from_items([{"piece": pickle.dumps(piece)} for piece in pieces], override_num_blocks=len(pieces))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Ray 2.60 takes the last two arguments nowhere else
        return rows.map_batches(
            _Worker,
            fn_constructor_args=(job,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers, initial_size=workers),
            num_cpus=1,
            num_gpus=1 if job.device == "cuda" else None,
            # Do not wait for the node of a lost worker to return: its pieces are assigned to other workers.
            max_restarts=0,
            max_task_retries=0,
        )


class _Worker:
    """Actor with its own copy of the model."""

    def __init__(self, job: _Job):
        _enter(job.folder)
        if job.device == "cpu":
            torch.set_num_threads(1)
        self.job = job
        self.predictor = Predictor(job.model, device=job.device, transform=job.transform)

    def __call__(self, batch: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        for data in batch["piece"]:
            for answer in self._of_piece(pickle.loads(data)):
                yield {"answer": np.array([pickle.dumps(answer)], dtype=object)}

    def _of_piece(self, piece: Piece) -> Iterator[_Answer]:
        job = self.job
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")

            def new_warnings() -> tuple[tuple[type[Warning], str], ...]:
                new = tuple((warning.category, str(warning.message)) for warning in caught)
                caught.clear()
                return new

            blocks = score_frames(
                self.predictor, job.frames, start=job.start, shard=job.shard, piece=piece, trained=job.trained
            )
            try:
                for scored in blocks:
                    block = scored.frames
                    frames, joined = len(block), block.num_joined
                    yield _Answer(block.position, job.each(scored), new_warnings(), frames=frames, joined=joined)
            except InputError as error:
                yield _Answer(warnings=new_warnings(), error=str(error))
            else:
                yield _Answer(warnings=new_warnings())
