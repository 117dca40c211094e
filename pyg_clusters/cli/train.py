"""``pyg-clusters train``."""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import pytorch_lightning as pl
import yaml
from jsonargparse import ArgumentError, Namespace
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from torch import nn

from pyg_clusters.errors import InputError, MissingExtra, describe_error
from pyg_clusters.evaluation.run import evaluate_run
from pyg_clusters.evaluation.training_set import copies_in_split
from pyg_clusters.files import atomic_write, output_lock, read_json
from pyg_clusters.formatting import print_lines
from pyg_clusters.models.checkpoint import is_ensemble, load_model
from pyg_clusters.models.weight_limit import bounded_weights
from pyg_clusters.options.parsing import explain, options_of
from pyg_clusters.training import ClusterDataModule, EnergyTraining, RunFolder
from pyg_clusters.training.ensemble import resume_ensemble, train_ensemble
from pyg_clusters.training.progress import TrainingProgress
from pyg_clusters.training.run import CONFIGURATION, FINGERPRINT, check_fingerprint, check_run_configuration
from pyg_clusters.training.run_folder import FINISHED
from pyg_clusters.trusted import check_extent, import_named, names_of_classes, trusting_files, trusts_files

TRAINER_DEFAULTS = {
    "max_epochs": 2000,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "inference_mode": False,  # forces are gradients in validation too
    "use_distributed_sampler": False,  # the sampler of ClusterDataModule shares the batches out
}
LIMITS = ("max_epochs", "max_steps")
"""Arguments of the trainer that end a training, which a finished run may be resumed with larger values of."""

DESCRIPTION = """Train a model as a recipe says.

The folder of the run holds the resolved configuration, metrics.csv (an epoch a row), the best model, the state to
resume from, the split, and at the end the predictions and errors of the test set and figures. A run that was stopped,
killed even, goes on with --resume and reaches what it would have reached; a finished one with a larger
--trainer.max_epochs. --trainer.max_time DD:HH:MM:SS ends it after
an epoch; the time before a --resume counts. Model, optimiser, schedule and data set are classes named in the recipe
(class_path). --ensemble 5 trains members of the seeds 0 to 4 on one split, each into a folder of its own under --out,
--workers of them (2 by default) at a time; the folder is then used as that of a run is."""
EXAMPLE = "example: pyg-clusters train --config train/dart_gallium.yaml --out runs/dart"


class TrainCLI(LightningCLI):
    """Configuration of a training, strict, from files and options."""

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
            subclass_mode_model=_names_training(argv),
            parser_kwargs={
                "exit_on_error": False,
                "allow_abbrev": False,
                "prog": "pyg-clusters train",
                "description": DESCRIPTION,
                "epilog": EXAMPLE,
            },
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser):
        parser.add_argument("--out", type=Path, default=Path("runs/run"), help="folder of the run")
        parser.add_argument(
            "--init-from",
            type=str | None,
            help="start from the weights of this trained model: folder of a run or a saved model, or a shipped name",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args):
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            raise InputError(explain(str(error), parser)) from error

    def before_instantiate_classes(self):
        self.parser.add_instantiator(_make_bounded, nn.Module)

    def instantiate_trainer(self, **kwargs) -> pl.Trainer:
        if not isinstance(self.config_init["trainer"], Namespace):
            raise InputError("trainer must be a group of arguments, as in trainer: {max_epochs: 40}")
        own = self.config_init["trainer"].get("callbacks") or []
        notes = {"config": CONFIGURATION}
        target = getattr(self.datamodule.dataset, "target", None)
        if isinstance(target, str):
            notes["target"] = target
        self.run_folder = RunFolder(self.config["out"], notes)
        # The trainer's own limit would stop within an epoch, of which a resumed run then lacks the rest.
        self.timer = Timer(self.config_init["trainer"].get("max_time"), interval="epoch", verbose=False)
        callbacks = [*own, TrainingProgress(), self.timer, self.run_folder]
        return super().instantiate_trainer(callbacks=callbacks, max_time=None, **kwargs)

    @property
    def stopped_by_time(self) -> bool:
        """Whether the limit of ``trainer.max_time`` ended the training."""
        remaining = self.timer.time_remaining("train")
        return remaining is not None and remaining <= 0


def _make_bounded(class_type: type[nn.Module], *args, **kwargs) -> nn.Module:
    with bounded_weights():
        return class_type(*args, **kwargs)


@contextmanager
def _errors_of_recipe(argv: Sequence[str]) -> Iterator[None]:
    """Errors of the classes that a recipe names, which are of any package, in one line with the recipe's name."""
    try:
        yield
    except (InputError, MissingExtra, BrokenPipeError):
        raise
    except Exception as error:
        recipe = next((value for name, value in options_of(argv) if name in ("config", "c")), "the recipe")
        raise InputError(f"{recipe}: {describe_error(error)}; --debug shows where") from error


def run(argv: Sequence[str]):
    """Trains; with ``--resume RUN`` goes on with a run that was stopped, with ``--ensemble N`` trains N members."""
    argv, resumed = _take_option(list(argv), "--resume")
    argv, members = _take_option(argv, "--ensemble")
    argv, workers = _take_option(argv, "--workers")
    if members is not None or (resumed is not None and is_ensemble(resumed)):
        _ensemble(argv, resumed, members, workers)
        return
    if resumed is not None:
        configuration = Path(resumed) / CONFIGURATION
        if not configuration.is_file():
            raise InputError(f"{resumed}: no {CONFIGURATION} in it; --resume takes the folder of a run")
        check_run_configuration(configuration)
        split = ["--data.split", str(Path(resumed) / "splits"), "--data.max_train_clusters", "null"]
        argv = ["--config", str(configuration), *split, *argv, "--out", resumed]
    elif not any(argument.split("=")[0] in ("--config", "-c", "--help", "-h", "--data.dataset") for argument in argv):
        raise InputError("train needs a recipe: --config FILE (train/*.yaml are some), or --resume RUN")
    train(argv, resume=resumed is not None)


def _ensemble(argv: list[str], resumed: str | None, members: str | None, workers: str | None):
    number, at_a_time = _whole("--ensemble", members or "2"), _whole("--workers", workers or "2")
    if resumed is not None:
        if members is not None or argv:
            raise InputError("--resume of an ensemble takes no other option than --workers")
        resume_ensemble(Path(resumed), at_a_time)
        _evaluate_ensemble(Path(resumed))
        return
    argv, recipe = _take_option(argv, "--config")
    argv, out = _take_option(argv, "--out")
    if recipe is None or out is None:
        raise InputError("an ensemble needs a recipe and a folder: --config FILE --ensemble 5 --out RUN")
    with trusting_files():  # the user's own recipe
        train_ensemble(Path(recipe), argv, number, Path(out), at_a_time)
        _evaluate_ensemble(Path(out))


def _evaluate_ensemble(folder: Path):
    with output_lock(folder, folder=True):
        evaluate_run(folder, by_size=False)
    print(f"trained an ensemble in {folder}; intervals: pyg-clusters calibrate {folder}")


def _whole(name: str, text: str) -> int:
    if not text.isdecimal():
        raise InputError(f"{name} needs a whole number, got {text!r}")
    return int(text)


def train(argv: Sequence[str], resume: bool = False):
    """Train and evaluate; a finished run is left alone, unless it is to have more epochs or steps than before."""
    for name in ("pytorch_lightning", "lightning_fabric"):  # importing them has set their level
        logging.getLogger(name).setLevel(logging.ERROR)
    # Classes of the user's own recipe; those of a run that is resumed were checked, unless it is trusted.
    if not resume or trusts_files():
        import_named(name for values in _recipes(argv) for name in names_of_classes(values))
    import_named(_classes_of_options(argv))
    with _errors_of_recipe(argv):
        cli = TrainCLI(argv)
    folder = cli.run_folder.folder
    checkpoint = cli.run_folder.last_checkpoint
    if resume and (folder / FINISHED).exists() and not _is_extended(folder, cli.trainer):
        print(
            f"{folder}: this run is finished; its errors are in {folder / 'test_metrics.json'}; a larger "
            "--trainer.max_epochs goes on"
        )
        return
    _check_trainer(cli.trainer)
    with _errors_of_recipe(argv):
        cli.model.check(cli.datamodule)
    if cli.config.init_from is not None and not (resume and checkpoint.exists()):
        cli.model.start_from(load_model(cli.config.init_from))
    with output_lock(folder, folder=True) if cli.trainer.is_global_zero else nullcontext():
        if not resume and not _is_helper_process():
            _begin(folder, cli)
            print_lines(copies_in_split(cli.datamodule))
        check_fingerprint(folder, cli.datamodule.dataset)
        if resume and cli.trainer.is_global_zero:
            _reopen(folder, cli.trainer)
        start = checkpoint if resume and checkpoint.exists() else None
        with _errors_of_recipe(argv):
            cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=start, weights_only=True)
        with trusting_files(not resume):  # the user's own recipe
            _conclude(folder, cli)


def _conclude(folder: Path, cli: TrainCLI):
    """Evaluates the best model, and says how the training ended."""
    if not cli.trainer.is_global_zero:
        return
    if not (folder / "best").exists():
        raise InputError(f"{folder}: {_why_no_model(cli)}")
    best = f"{cli.run_folder.best:.2f} {cli.model.unit}"
    print(f"trained for {cli.trainer.current_epoch} epochs, best validation MAE {best}")
    evaluate_run(folder, cli.datamodule, by_size=False)
    if cli.stopped_by_time:
        print(
            f"stopped by the limit of time (trainer.max_time); pyg-clusters train --resume {folder} with a larger "
            "--trainer.max_time goes on"
        )
    else:
        _finish(folder, cli)


def _why_no_model(cli: TrainCLI) -> str:
    if cli.run_folder.rows:
        return "the validation error was never a number; train anew with a smaller learning rate"
    if cli.stopped_by_time:
        return "not one epoch was trained within trainer.max_time; resume it with a larger limit"
    return "no epoch was trained; is trainer.max_epochs (or max_steps) large enough?"


def _check_trainer(trainer: pl.Trainer):
    """Checks arguments that Lightning takes as they are."""
    for name, least in {"gradient_clip_val": 0, "accumulate_grad_batches": 1}.items():
        value = getattr(trainer, name)
        if value is not None and not value >= least:
            raise InputError(f"trainer.{name} must be at least {least}, got {value}")
    if trainer.check_val_every_n_epoch != 1 or not trainer.limit_val_batches:
        raise InputError(
            "every epoch is validated: leave check_val_every_n_epoch at 1 and limit_val_batches above 0 (the schedule, "
            "the best model and metrics.csv need it)"
        )


def _begin(folder: Path, cli: TrainCLI):
    """Lays down the folder of a new run."""
    if (folder / CONFIGURATION).exists():
        raise InputError(
            f"{folder} holds a run already; go on with pyg-clusters train --resume {folder} (if it is finished, with "
            "a larger --trainer.max_epochs), or choose another --out"
        )
    cli.datamodule.split.save(folder / "splits")
    fingerprint = getattr(cli.datamodule.dataset, "fingerprint", None)
    if fingerprint is not None:
        with atomic_write(folder / FINGERPRINT) as path:
            path.write_text(fingerprint + "\n")
    with atomic_write(folder / CONFIGURATION) as path:
        cli.parser.save(cli.config, path, overwrite=True, skip_unset=False)


def _finish(folder: Path, cli: TrainCLI):
    """Marks a run that has nothing left to train."""
    summary = {
        "epochs": cli.trainer.current_epoch,
        **_limits(cli.trainer),
        f"best_val_mae_{cli.model.unit.replace('/', '_')}": cli.run_folder.best,
        "seconds": round(cli.timer.time_elapsed("train"), 1),
    }
    with atomic_write(folder / FINISHED) as path:
        path.write_text(json.dumps(summary, indent=2) + "\n")


def _limits(trainer: pl.Trainer) -> dict[str, int | None]:
    return {name: getattr(trainer, name) for name in LIMITS}


def _is_extended(folder: Path, trainer: pl.Trainer) -> bool:
    """Whether a finished run is to have more epochs or steps than it was to have before."""
    remedy = "remove it and resume the run once more"
    before = read_json(folder / FINISHED, remedy)
    for name, limit in _limits(trainer).items():
        last = before.get(name)
        if not isinstance(last, int | None):
            raise InputError(f"{folder / FINISHED}: corrupted ({name} is {str(last)[:80]!r}); {remedy}")
        if last is not None and last >= 0 and (limit is None or limit < 0 or limit > last):
            return True
    return False


def _reopen(folder: Path, trainer: pl.Trainer):
    """Notes the limits of a run that is to have more epochs or steps, so that a kill does not lose them."""
    configuration = yaml.safe_load((folder / CONFIGURATION).read_text())
    if any(configuration["trainer"].get(name) != limit for name, limit in _limits(trainer).items()):
        configuration["trainer"] |= _limits(trainer)
        with atomic_write(folder / CONFIGURATION) as path:
            path.write_text(yaml.safe_dump(configuration, sort_keys=False))
    (folder / FINISHED).unlink(missing_ok=True)


def _is_helper_process() -> bool:
    """Whether a first process started this one (as distributed training does)."""
    return int(os.environ.get("LOCAL_RANK", "0")) > 0


def _names_training(argv: Sequence[str]) -> bool:
    """Whether a recipe or an option names the class that trains (``model.class_path``), not its arguments alone."""
    if any(argument.partition("=")[0] in ("--model", "--model.class_path") for argument in argv):
        return True
    models = [recipe.get("model") for recipe in _recipes(argv)]
    return any(isinstance(model, dict) and "class_path" in model for model in models)


def _recipes(argv: Sequence[str]) -> Iterator[dict]:
    """Values of the recipes that can be read; the parser reports what is wrong with others."""
    for name, value in options_of(argv):
        recipe = None
        with suppress(OSError, ValueError, RecursionError, yaml.YAMLError):
            recipe = yaml.safe_load(Path(value).read_text(encoding="utf-8")) if name in ("config", "c") else None
        check_extent(recipe, value)
        if isinstance(recipe, dict):
            yield recipe


def _classes_of_options(argv: Sequence[str]) -> Iterator[str]:
    """Import paths of classes among the values of options."""
    for name, value in options_of(argv):
        values = None
        with suppress(yaml.YAMLError, RecursionError, ValueError):
            values = yaml.safe_load(value)
        check_extent(values, f"--{name}")
        yield from names_of_classes(values, name.rpartition(".")[2])


def _take_option(argv: list[str], name: str) -> tuple[list[str], str | None]:
    """Removes ``name VALUE`` or ``name=VALUE`` from the arguments."""
    for place, argument in enumerate(argv):
        if argument == name:
            if place + 1 == len(argv):
                raise InputError(f"{name} needs a value")
            return argv[:place] + argv[place + 2 :], argv[place + 1]
        if argument.startswith(name + "="):
            return argv[:place] + argv[place + 1 :], argument.partition("=")[2]
    return argv, None
