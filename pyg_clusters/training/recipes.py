"""Recipes on the command line, their checks, and the configuration of a training run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytorch_lightning as pl
import yaml
from jsonargparse import ArgumentError, Namespace
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from pyg_clusters.errors import InputError, MissingExtra, describe_error
from pyg_clusters.inference.run import CONFIGURATION, read_yaml
from pyg_clusters.options.parsing import explain, options_of
from pyg_clusters.shipped import recipe_file
from pyg_clusters.training.energy import EnergyTraining
from pyg_clusters.training.trainer_parts import ClusterDataModule, RunFolder, TrainingProgress
from pyg_clusters.trusted import check_extent, check_trusted, names_of_classes

TRAINER_DEFAULTS = {
    "max_epochs": 2000,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "inference_mode": False,  # forces are gradients in validation too
    "use_distributed_sampler": False,  # the sampler of ClusterDataModule divides the batches
}

KEYS = ("seed_everything", "trainer", "model", "data", "out", "init_from")  # keys of a recipe


def check_recipe(file: Path):
    """Check a recipe in a folder of results, or the resolved configuration of a run, before it is used."""
    values = read_yaml(file)
    unknown = [str(key) for key in values if key not in KEYS]
    if unknown:
        raise InputError(f"{file}: {', '.join(unknown)[:80]} is not a key of a recipe; the keys are {', '.join(KEYS)}")
    check_trusted(values, file)


def recipes_in(argv: Sequence[str]) -> Iterator[dict]:
    """Values of the recipes that can be read; errors in others are left to the parser."""
    for name, value in options_of(argv):
        recipe = None
        with suppress(OSError, ValueError, RecursionError, yaml.YAMLError):
            recipe = yaml.safe_load(Path(value).read_text(encoding="utf-8")) if name in ("config", "c") else None
        check_extent(recipe, value)
        if isinstance(recipe, dict):
            yield recipe


def classes_in_options(argv: Sequence[str]) -> Iterator[str]:
    """Import paths of the classes in the options of a command line."""
    for name, value in options_of(argv):
        values = None
        with suppress(yaml.YAMLError, RecursionError, ValueError):
            values = yaml.safe_load(value)
        check_extent(values, f"--{name}")
        yield from names_of_classes(values, name.rpartition(".")[2])


def names_training(argv: Sequence[str]) -> bool:
    """Whether a recipe or an option names the class of the training (``model.class_path``)."""
    if any(argument.partition("=")[0] in ("--model", "--model.class_path") for argument in argv):
        return True
    models = [recipe.get("model") for recipe in recipes_in(argv)]
    return any(isinstance(model, dict) and "class_path" in model for model in models)


def with_recipe(argv: list[str]) -> list[str]:
    """Replace a recipe in the first argument, given by its file or shipped name, by ``--config FILE``."""
    if argv and not argv[0].startswith("-"):
        argv = ["--config", *argv]
    recipes = []
    for before, argument in zip(["", *argv], argv, strict=False):
        option, equals, name = argument.partition("=")
        if before in ("--config", "-c"):
            recipes.append(_recipe(argument))
        else:
            recipes.append(f"{option}={_recipe(name)}" if equals and option in ("--config", "-c") else argument)
    return recipes


def _recipe(name: str) -> str:
    """File of a recipe; the text of a recipe is returned as it is."""
    return name if name.startswith("{") else str(recipe_file(name))


def take_option(argv: list[str], name: str) -> tuple[list[str], str | None]:
    """Remove ``name VALUE`` or ``name=VALUE`` from the arguments."""
    for index, argument in enumerate(argv):
        if argument == name:
            if index + 1 == len(argv):
                raise InputError(f"{name} needs a value")
            return argv[:index] + argv[index + 2 :], argv[index + 1]
        if argument.startswith(name + "="):
            return argv[:index] + argv[index + 1 :], argument.partition("=")[2]
    return argv, None


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
def errors_of_recipe(argv: Sequence[str]) -> Iterator[None]:
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
