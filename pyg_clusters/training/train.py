"""Training from a YAML recipe."""

import logging
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import pytorch_lightning as pl
import torch
import yaml

from pyg_clusters.errors import InputError, one_line
from pyg_clusters.evaluation.evaluate import evaluate_run
from pyg_clusters.files import atomic_write, output_lock, read_json, write_json, write_text
from pyg_clusters.inference.run import CONFIGURATION, FINGERPRINT, FINISHED, METRICS, SPLITS, Run
from pyg_clusters.models.checkpoint import BEST, runs_within
from pyg_clusters.options.parsing import options_of
from pyg_clusters.terminal import count_of
from pyg_clusters.training.launcher import resume_ensemble, train_ensemble
from pyg_clusters.training.recipes import (
    TrainCLI,
    check_recipe,
    classes_in_options,
    errors_of_recipe,
    recipes_in,
    take_option,
    with_recipe,
)
from pyg_clusters.trusted import import_named, names_of_classes, trusting_files, trusts_files

LIMITS = ("max_epochs", "max_steps")
"""Arguments of the trainer that end a training; a finished run can be resumed with larger values."""


def train(argv: Sequence[str]):
    """Train a model from a recipe, evaluate it, and print its errors.

    Args:
        argv: Arguments of ``pyg-clusters train``: recipe and ``--out`` of a new run, or ``--resume``;
            ``--ensemble`` and ``--workers``; and values of the recipe, as in ``--trainer.max_epochs 10``.

    Raises:
        InputError: If the recipe cannot be used, the folder holds another run, or the training yields no model.

    Example:
        >>> train(["dart-gallium", "--out", "runs/dart"])  # doctest: +SKIP
    """
    argv = with_recipe(list(argv))
    argv, resumed = take_option(argv, "--resume")
    argv, members = take_option(argv, "--ensemble")
    argv, workers = take_option(argv, "--workers")
    run = None if resumed is None else Run(resumed)
    if members is not None or (run is not None and run.is_ensemble):
        _train_ensemble(argv, run, members, workers)
        return
    if run is not None:
        configuration = run.path / CONFIGURATION
        if not configuration.is_file():
            hint = "".join(f"; did you mean {within}?" for within in runs_within(run.path)[:1])
            raise InputError(f"{run.path}: contains no {CONFIGURATION}; --resume takes the folder of a run{hint}")
        check_recipe(configuration)
        split = ["--data.split", str(run.path / SPLITS), "--data.max_train_clusters", "null"]
        argv = ["--config", str(configuration), *split, *argv, "--out", str(run.path)]
    elif not any(argument.split("=")[0] in ("--config", "-c", "--data.dataset") for argument in argv):
        raise InputError(
            "train needs a recipe (--config FILE, or a name from pyg-clusters recipes) or --resume RUN; pyg-clusters "
            "new-recipe writes one for your own files"
        )
    _train_run(argv, resume=run is not None)


def _train_ensemble(argv: list[str], run: Run | None, members: str | None, workers: str | None):
    number, parallel = _whole("--ensemble", members or "2"), _whole("--workers", workers or "2")
    if run is not None:
        if members is not None or argv:
            raise InputError("--resume of an ensemble takes no option but --workers")
        resume_ensemble(run.path, parallel)
        _evaluate_ensemble(run)
        return
    argv, recipe = take_option(argv, "--config")
    argv, out = take_option(argv, "--out")
    if recipe is None or out is None:
        raise InputError("an ensemble needs a recipe and a folder: --config FILE --ensemble 5 --out RUN")
    started = any(name == "init-from" for name, _ in options_of(argv))
    if started or any(each.get("init_from") for each in recipes_in(["--config", recipe])):
        print(
            "warning: all members start from the same weights, so their spread is too small: fine-tune the members of "
            "an ensemble one by one, and combine them with pyg-clusters ensemble"
        )
    with trusting_files():  # the user's own recipe
        train_ensemble(Path(recipe), argv, number, Path(out), parallel)
        _evaluate_ensemble(Run(out))


def _evaluate_ensemble(run: Run):
    with output_lock(run.path, folder=True):
        evaluate_run(run).print(by_size=False)
    print(_next_steps(run))


def _next_steps(run: Run) -> str:
    can_be_calibrated = "pos" in run.data.batches.stored([0])
    return f"model in {run.path}; next: pyg-clusters predict {run.path} FRAMES --out FILE" + (
        f", or pyg-clusters calibrate {run.path} for intervals" if can_be_calibrated else ""
    )


def _whole(name: str, text: str) -> int:
    if not text.isdecimal():
        raise InputError(f"{name} needs a whole number, got {text!r}")
    return int(text)


def _train_run(argv: Sequence[str], resume: bool):
    """Train and evaluate; a finished run is not changed unless its number of epochs or steps is increased."""
    for name in ("pytorch_lightning", "lightning_fabric"):  # importing them has set their level
        logging.getLogger(name).setLevel(logging.ERROR)
    # Import the classes of the user's own recipe; those of a resumed run are imported only if it is trusted.
    if not resume or trusts_files():
        import_named(name for recipe in recipes_in(argv) for name in names_of_classes(recipe))
    import_named(classes_in_options(argv))
    with errors_of_recipe(argv):
        cli = TrainCLI(argv)
    run = Run(cli.run_folder.folder)
    checkpoint = cli.run_folder.last_checkpoint
    if resume and (run.path / FINISHED).exists() and not _is_extended(run, cli.trainer):
        print(
            f"{run.path}: this run is finished; its errors are in {run.path / METRICS}; a larger --trainer.max_epochs "
            "resumes it"
        )
        return
    _check_trainer(cli.trainer)
    with errors_of_recipe(argv):
        cli.model.check(cli.datamodule)
    if cli.config.init_from is not None and not (resume and checkpoint.exists()):
        cli.model.start_from(Run(cli.config.init_from).model)
        for line in cli.model.zero_remarks(cli.datamodule, f"--init-from {cli.config.init_from}"):
            print(line)
    with output_lock(run.path, folder=True) if cli.trainer.is_global_zero else nullcontext():
        if not resume and int(os.environ.get("LOCAL_RANK", "0")) == 0:  # the first process of a distributed training
            _begin(run, cli)
            for line in cli.datamodule.remarks():
                print(line)
        run.check_fingerprint(cli.datamodule.dataset)
        start = checkpoint if resume and checkpoint.exists() else None
        if start is not None:
            _check_checkpoint(start)
        if resume and cli.trainer.is_global_zero:
            _reopen(run, cli.trainer)
        with errors_of_recipe(argv):
            cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=start, weights_only=True)
        if cli.trainer.is_global_zero:
            run.data = cli.datamodule
            with trusting_files(not resume):  # the user's own recipe
                _conclude(run, cli)


def _conclude(run: Run, cli: TrainCLI):
    """Evaluate the best model, report how the training ended, and mark the run as finished."""
    if not (run.path / BEST).exists():
        raise InputError(f"{run.path}: {_reason_for_no_model(cli)}")
    epochs, best = count_of(cli.trainer.current_epoch, "epoch"), f"{cli.run_folder.best:.2f} {cli.model.unit}"
    if cli.model.rate_is_low and cli.trainer.current_epoch < (cli.trainer.max_epochs or 0):
        epochs += f" (until the learning rate of the schedule fell below {cli.model.stop_below_rate:g})"
    print(f"trained for {epochs}, best validation MAE {best}")
    evaluate_run(run).print(by_size=False)
    if cli.stopped_by_time:
        print(
            f"stopped by the time limit (trainer.max_time); resume it with pyg-clusters train --resume {run.path} "
            "and a larger --trainer.max_time"
        )
    else:
        summary = {
            "epochs": cli.trainer.current_epoch,
            **_limits(cli.trainer),
            f"best_val_mae_{cli.model.unit.replace('/', '_')}": cli.run_folder.best,
            "seconds": round(cli.timer.time_elapsed("train"), 1),
        }
        write_json(run.path / FINISHED, summary)
        print(_next_steps(run))


def _reason_for_no_model(cli: TrainCLI) -> str:
    if cli.run_folder.rows:
        return "the validation error was always NaN; train again with a smaller learning rate"
    if cli.stopped_by_time:
        return "no epoch was completed within trainer.max_time; resume it with a larger limit"
    return "no epoch was trained; is trainer.max_epochs (or max_steps) large enough?"


def _check_checkpoint(path: Path):
    """Check a checkpoint before anything in its folder is changed, without running code in it."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if missing := {"state_dict", "optimizer_states", "loops"} - state.keys():
            raise ValueError(f"{min(missing)} is missing")
    except Exception as error:  # corrupted pickles and archives raise errors of many types
        reason = one_line(error, 120)
        raise InputError(f"{path}: corrupted ({reason}); remove it to train from the first epoch again") from error


def _check_trainer(trainer: pl.Trainer):
    """Check arguments that Lightning does not check."""
    for name, least in {"gradient_clip_val": 0, "accumulate_grad_batches": 1}.items():
        value = getattr(trainer, name)
        if value is not None and not value >= least:
            raise InputError(f"trainer.{name} must be at least {least}, got {value}")
    if trainer.precision in ("16-true", "bf16-true"):
        raise InputError(
            f"trainer.precision {trainer.precision} rounds positions by hundredths of Å and energies by tenths of eV: "
            "use bf16-mixed"
        )
    if trainer.check_val_every_n_epoch != 1 or not trainer.limit_val_batches:
        raise InputError(
            "every epoch is validated: leave check_val_every_n_epoch at 1 and limit_val_batches above 0 (the schedule, "
            "the best model and metrics.csv need it)"
        )


def _begin(run: Run, cli: TrainCLI):
    """Create the folder of a new run."""
    folder = run.path
    if (folder / CONFIGURATION).exists():
        raise InputError(
            f"{folder} already contains a run; resume it with pyg-clusters train --resume {folder} (if it is finished, "
            "with a larger --trainer.max_epochs), or choose another --out"
        )
    cli.datamodule.split.save(folder / SPLITS)
    fingerprint = getattr(cli.datamodule.dataset, "fingerprint", None)
    if fingerprint is not None:
        write_text(folder / FINGERPRINT, fingerprint + "\n")
    with atomic_write(folder / CONFIGURATION) as path:
        cli.parser.save(cli.config, path, overwrite=True, skip_unset=False, skip_validation=True)


def _limits(trainer: pl.Trainer) -> dict[str, int | None]:
    return {name: getattr(trainer, name) for name in LIMITS}


def _is_extended(run: Run, trainer: pl.Trainer) -> bool:
    """Whether the number of epochs or steps of a finished run is increased."""
    file, remedy = run.path / FINISHED, "remove it and resume the run once more"
    before = read_json(file, remedy)
    for name, limit in _limits(trainer).items():
        last = before.get(name)
        if not isinstance(last, int | None):
            raise InputError(f"{file}: corrupted ({name} is {str(last)[:80]!r}); {remedy}")
        if last is not None and last >= 0 and (limit is None or limit < 0 or limit > last):
            return True
    return False


def _reopen(run: Run, trainer: pl.Trainer):
    """Save the new limits of a run, so that a kill does not lose them."""
    configuration = run.configuration
    if any(configuration["trainer"].get(name) != limit for name, limit in _limits(trainer).items()):
        configuration["trainer"] |= _limits(trainer)
        write_text(run.path / CONFIGURATION, yaml.safe_dump(configuration, sort_keys=False))
    (run.path / FINISHED).unlink(missing_ok=True)
