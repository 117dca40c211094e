"""Training from a YAML recipe."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytorch_lightning as pl
import torch
import yaml
from jsonargparse import ArgumentError, Namespace
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from pyg_clusters.datasets.training_data import MAX_COMPARED, TrainingData
from pyg_clusters.errors import InputError, MissingExtra, describe_error, one_line
from pyg_clusters.evaluation.evaluate import evaluate_run
from pyg_clusters.evaluation.report import other_zero, zero_remarks
from pyg_clusters.files import atomic_write, output_lock, read_json, write_json
from pyg_clusters.inference.run import CONFIGURATION, FINGERPRINT, FINISHED, METRICS, SPLITS, Run
from pyg_clusters.metrics import look_per_atom
from pyg_clusters.models.checkpoint import BEST, runs_within
from pyg_clusters.nn import EnergyScale
from pyg_clusters.options.parsing import explain, options_of
from pyg_clusters.terminal import count_of
from pyg_clusters.training.energy import EnergyTraining
from pyg_clusters.training.launcher import resume_ensemble, train_ensemble
from pyg_clusters.training.recipes import (
    check_recipe,
    classes_in_options,
    names_training,
    recipes_in,
    take_option,
    with_recipe,
)
from pyg_clusters.training.trainer_parts import ClusterDataModule, RunFolder, TrainingProgress
from pyg_clusters.trusted import import_named, names_of_classes, trusting_files, trusts_files

TRAINER_DEFAULTS = {
    "max_epochs": 2000,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "inference_mode": False,  # forces are gradients in validation too
    "use_distributed_sampler": False,  # the sampler of ClusterDataModule divides the batches
}
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
    print(f"trained an ensemble in {run.path}; intervals: pyg-clusters calibrate {run.path}")


def _whole(name: str, text: str) -> int:
    if not text.isdecimal():
        raise InputError(f"{name} needs a whole number, got {text!r}")
    return int(text)


class TrainCLI(LightningCLI):
    """Strict configuration of a training, from files and options."""

    def __init__(self, argv: Sequence[str]):
        super().__init__(
            EnergyTraining,
            ClusterDataModule,
            run=False,
            args=list(argv),
            save_config_callback=None,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            subclass_mode_model=names_training(argv),
            parser_kwargs={"exit_on_error": False, "allow_abbrev": False, "prog": "pyg-clusters train"},
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser):
        parser.add_argument("--out", type=Path, default=Path("runs/run"), help="folder of the run")
        parser.add_argument("--init-from", type=str | None, help="trained model to start from")

    def parse_arguments(self, parser: LightningArgumentParser, args):
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            raise InputError(explain(str(error), parser)) from error

    def _dump_config(self):
        self.config_dump = {}  # Lightning's copy of the hyperparameters, which config.yaml holds

    def instantiate_trainer(self, **kwargs) -> pl.Trainer:
        if not isinstance(self.config_init["trainer"], Namespace):
            raise InputError("trainer must be a group of arguments, as in trainer: {max_epochs: 40}")
        callbacks = self.config_init["trainer"].get("callbacks") or []
        notes = {"config": CONFIGURATION}
        dataset = self.datamodule.dataset
        if isinstance(target := getattr(dataset, "target", None), str):
            notes["target"] = target
        if getattr(dataset, "forces", False):
            notes["forces"] = dataset.forces_key
        self.run_folder = RunFolder(self.config["out"], notes)
        # The trainer's own limit would stop within an epoch, and a resumed run would skip the rest of it.
        self.timer = Timer(self.config_init["trainer"].get("max_time"), interval="epoch", verbose=False)
        callbacks = [*callbacks, TrainingProgress(), self.timer, self.run_folder]
        return super().instantiate_trainer(callbacks=callbacks, max_time=None, **kwargs)

    @property
    def stopped_by_time(self) -> bool:
        """Whether ``trainer.max_time`` ended the training."""
        remaining = self.timer.time_remaining("train")
        return remaining is not None and remaining <= 0


@contextmanager
def _errors_of_recipe(argv: Sequence[str]) -> Iterator[None]:
    """Report errors of the classes in a recipe, which may be of any package, in one line with its name."""
    try:
        yield
    except (InputError, MissingExtra, BrokenPipeError):
        raise
    except Exception as error:
        if "accelerator" in str(error) or "backend found" in str(error):
            trainers = [recipe.get("trainer") for recipe in recipes_in(argv)]
            asked = [trainer.get("accelerator") for trainer in trainers if isinstance(trainer, dict)]
            asked += [value for name, value in options_of(argv) if name == "trainer.accelerator"]
            last = next((name for name in reversed(asked) if name), "auto")
            raise InputError(
                f"--trainer.accelerator {last}: not available on this machine; leave it out, or give cpu"
            ) from error
        recipe = next((value for name, value in options_of(argv) if name in ("config", "c")), "the recipe")
        raise InputError(f"{recipe}: {describe_error(error)}; --debug prints the traceback") from error


def _train_run(argv: Sequence[str], resume: bool):
    """Train and evaluate; a finished run is not changed unless its number of epochs or steps is increased."""
    for name in ("pytorch_lightning", "lightning_fabric"):  # importing them has set their level
        logging.getLogger(name).setLevel(logging.ERROR)
    # Import the classes of the user's own recipe; those of a resumed run are imported only if it is trusted.
    if not resume or trusts_files():
        import_named(name for recipe in recipes_in(argv) for name in names_of_classes(recipe))
    import_named(classes_in_options(argv))
    with _errors_of_recipe(argv):
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
    with _errors_of_recipe(argv):
        cli.model.check(cli.datamodule)
    if cli.config.init_from is not None and not (resume and checkpoint.exists()):
        cli.model.start_from(Run(cli.config.init_from).model)
        for line in _check_zero(cli.model, cli.datamodule, cli.config.init_from):
            print(line)
    with output_lock(run.path, folder=True) if cli.trainer.is_global_zero else nullcontext():
        if not resume and int(os.environ.get("LOCAL_RANK", "0")) == 0:  # the first process of a distributed training
            _begin(run, cli)
            for line in (*_check_totals(cli.datamodule), *cli.datamodule.copies_in_split()):
                print(line)
        run.check_fingerprint(cli.datamodule.dataset)
        start = checkpoint if resume and checkpoint.exists() else None
        if start is not None:
            _check_checkpoint(start)
        if resume and cli.trainer.is_global_zero:
            _reopen(run, cli.trainer)
        with _errors_of_recipe(argv):
            cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=start, weights_only=True)
        if cli.trainer.is_global_zero:
            run.data = cli.datamodule
            with trusting_files(not resume):  # the user's own recipe
                _conclude(run, cli)


def _some_for_training(data: TrainingData) -> list[int]:
    """Evenly spaced clusters of the training set, at most :data:`MAX_COMPARED`."""
    train = data.split.train
    return train[:: -(-train.numel() // MAX_COMPARED)].tolist()


def _check_totals(data: TrainingData) -> list[str]:
    """Warning if the labels are probably energies per atom, while a model sums over the atoms."""
    if data.per_atom:
        return []
    batch = data.batches.stored(_some_for_training(data))
    if not look_per_atom(data.labels(batch).double().numpy(), batch.ptr.diff().numpy()):
        return []
    return [
        "warning: the labels hardly change with the number of atoms, as energies per atom do; a model needs the "
        "energies of whole clusters: multiply them by the number of atoms"
    ]


def _check_zero(training: EnergyTraining, data: TrainingData, start: str) -> list[str]:
    """Compare the zero of the labels with that of the trained model to start from, which keeps its offset.

    Returns:
        A warning if the zeros seem to differ.

    Raises:
        InputError: If they differ by more than the error of any model.
    """
    scale = getattr(training.model, "scale", None)
    if not isinstance(scale, EnergyScale):
        return []
    batch = data.batches[_some_for_training(data)]
    training.eval()
    with torch.no_grad():
        predicted = training(batch).double()
    training.train()
    if data.references:  # they replace those of the model
        predicted = predicted - scale.sums_of_references(batch.z, batch.batch, batch.y.numel())
    zero = other_zero(*(values.numpy() for values in (batch.z, batch.ptr, predicted, batch.y.double())))
    advice = (
        "Give their unit (energy_unit) or the energies of their isolated atoms (references) to the data set, or omit "
        "--init-from"
    )
    return zero_remarks(zero, f"--init-from {start}", advice)


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
        with atomic_write(folder / FINGERPRINT) as path:
            path.write_text(fingerprint + "\n", encoding="utf-8")
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
        with atomic_write(run.path / CONFIGURATION) as path:
            path.write_text(yaml.safe_dump(configuration, sort_keys=False), encoding="utf-8")
    (run.path / FINISHED).unlink(missing_ok=True)
