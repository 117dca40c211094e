"""Options of the verbs that train and evaluate models, and reproduce papers."""

from dataclasses import dataclass, field
from typing import Literal

from pyg_clusters.errors import InputError
from pyg_clusters.options import (
    VERBS,
    CheckOptions,
    CoverageOptions,
    DeviceOptions,
    EnergyUnitOptions,
    FrameOptions,
    OverwriteOptions,
    Verb,
    check_counts,
    verb,
)


@verb("models", "pyg_clusters.models.checkpoint.list_models", "list the pretrained models", "")
@dataclass(kw_only=True)
class ModelsOptions:
    """List the pretrained models that come with the package; `pyg-clusters info NAME` describes one of them."""


@verb("recipes", "pyg_clusters.shipped.list_recipes", "list the recipes that come with the package", "dart-gallium")
@dataclass(kw_only=True)
class RecipesOptions:
    """List the recipes that come with the package, for `pyg-clusters train NAME`, or print one of them."""

    name: str | None = field(default=None, metadata={"positional": True})
    """recipe to print"""


@verb(
    "new-recipe",
    "pyg_clusters.training.new_recipe.new_recipe",
    "write a recipe for your own files",
    "md1.extxyz md2.extxyz --out recipe.yaml",
)
@dataclass(kw_only=True)
class NewRecipeOptions(OverwriteOptions, FrameOptions):
    """Write a commented training recipe for your own files of frames. The label, the forces and the elements are taken
    from the frames, the radii follow from the pair-distance distribution g(r), and the model and the split are chosen
    to suit the data.
    """

    target: str | None = None
    """name of the label, required if the frames have several"""
    epochs: int = 60
    """number of epochs"""
    out: str
    """recipe to write (.yaml)"""

    def __post_init__(self):
        check_counts(self, "epochs")


TRAIN_HELP = """usage: pyg-clusters train RECIPE --out RUN [OPTIONS]
       pyg-clusters train --resume RUN [OPTIONS]

Train a model from a YAML recipe. The run folder contains the resolved
configuration, metrics.csv (a row per epoch), the best model, the state to
resume from, the split, and, after training, predictions, errors and figures
of the test set. An interrupted run can be resumed, with the same result as an
uninterrupted one.

  RECIPE, --config RECIPE
                         YAML file, or a name from pyg-clusters recipes
                         (pyg-clusters new-recipe writes one for your own
                         files); a later --config overrides values of an
                         earlier one
  --out FOLDER           folder of the run (default: runs/run)
  --resume RUN           resume an interrupted run, or extend a finished one
                         with a larger --trainer.max_epochs
  --init-from MODEL      start from the weights of a trained model: a folder,
                         or the name of a pretrained model
  --ensemble N           train N members with the seeds 0 to N - 1 on one
                         split, in folders under --out, which is then used
                         like the folder of a run
  --workers N            number of members trained in parallel (default: 2)
  --seed_everything N    seed of the initial weights and of position noise
                         (seed of the order: --data.shuffle_seed N)

Every value of a recipe is also an option, and every class can be replaced by
name or import path:
  --data.dataset CLASS   data set; its arguments are --data.dataset.NAME VALUE
  --data.split KIND      group, random, size, fold, paper, or the folder of a
                         saved split
  --data.batch_size N    clusters in a batch
  --data.copies_together true
                         keep copies of a structure in one part of the split
  --model CLASS          EnergyTraining, ForceTraining or ShieldingTraining
  --model.model CLASS    model, for example DART or
                         pyg_clusters.models.SmoothDART
  --model.optimizer CLASS
                         optimiser
  --model.scheduler CLASS
                         schedule of the learning rate
  --trainer.max_epochs N
                         maximum number of epochs
  --trainer.max_time DD:HH:MM:SS
                         stop after the epoch in which this time is reached,
                         including resumed parts
  --trainer.logger CLASS
                         CSVLogger, TensorBoardLogger, ...; its arguments are
                         set by --trainer.logger.NAME VALUE; such a run is
                         resumed with --trust, as its logger may write any
                         file
  --trainer.accelerator gpu --trainer.devices 2 ...
                         any argument of the Trainer of PyTorch Lightning

  --config RECIPE --print_config
                         print all values, including defaults, and exit

example: pyg-clusters train dart-gallium --out runs/dart
"""

VERBS["train"] = Verb("train a model from a YAML recipe", "pyg_clusters.training.train", help=TRAIN_HELP)


@verb(
    "ensemble",
    "pyg_clusters.inference.run.ensemble",
    "combine several runs into an ensemble",
    "runs/dart_a runs/dart_b runs/dart_c --out runs/dart",
)
@dataclass(kw_only=True)
class EnsembleOptions:
    """Combine several runs into an ensemble, whose prediction is the mean of its members. The runs stay where they are,
    and the folder of the ensemble is used like that of a run. train --ensemble 5 also trains the members.
    """

    runs: list[str] = field(metadata={"positional": True})
    """folders of runs or saved models that were trained on the same data"""
    out: str
    """folder of the ensemble"""


@verb(
    "evaluate",
    "pyg_clusters.evaluation.evaluate",
    "compute errors of a model on test or labelled frames",
    "runs/dart",
)
@dataclass(kw_only=True)
class EvaluateOptions(OverwriteOptions, EnergyUnitOptions, DeviceOptions, CheckOptions, CoverageOptions):
    """Compute errors of a trained model on the test set of its run, or on labelled frames."""

    run: str = field(metadata={"positional": True})
    """folder of a run, an ensemble or a saved model, or the name of a pretrained model"""
    frames: list[str] = field(default_factory=list, metadata={"positional": True})
    """files of labelled frames; without them the test set of the run is used"""
    target: str | None = None
    """name of the label in the frames: the energy, or the shielding of each atom in ppm; by default the label on which
    the model was trained, or, if that is unknown, binding_energy or nmr_shielding"""
    forces: str | None = None
    """name of the forces in the frames, in the unit of the energies per Å; by default those on which the model was
    trained, if all frames have them"""
    out: str | None = None
    """JSON file for the errors on FRAMES"""

    def __post_init__(self):
        super().__post_init__()
        of_run = {
            "out": "the errors of a run are written to its test_metrics.json",
            "target": "the label of a run is known",
            "energy_unit": "the unit of the data of a run is known",
            "forces": "the name of the forces of a run is known",
        }
        for name, reason in of_run.items():
            if not self.frames and getattr(self, name) is not None:
                raise InputError(f"--{name.replace('_', '-')} requires FRAMES; {reason}")


@verb(
    "calibrate", "pyg_clusters.evaluation.calibrate", "calibrate prediction intervals on held-out errors", "runs/dart"
)
@dataclass(kw_only=True)
class CalibrateOptions(DeviceOptions):
    """Calibrate a run or an ensemble from its errors on the validation set, for intervals of a given coverage
    (--coverage of predict and evaluate), and record the ranges of the training set for flags. The result is
    calibration.json in the folder.
    """

    run: str = field(metadata={"positional": True})
    """folder of a run, or of an ensemble of runs"""
    spread: Literal["none", "last_layer"] = "none"
    """for a single model: intervals that grow with the square root of the number of atoms (none), or also with the
    spread of a Gaussian posterior of the last layer (last_layer); an ensemble has its own spread"""


Target = Literal["energy", "shielding"]


@dataclass(kw_only=True)
class ReproduceOptions:
    """Runs and results of a reproduction."""

    quick: bool = False
    """train for only a few epochs, to test in at most ten minutes that everything works"""
    only: list[str] | None = None
    """tables, training runs or methods by name: 'Table 2', dart_without_k, lasso_both"""
    workers: int = 2
    """number of training runs in parallel, with one thread each"""
    out: str
    """folder of the runs and the results"""

    def __post_init__(self):
        check_counts(self, "workers")


VERBS["reproduce"] = Verb("reproduce the tables of a paper", kind="paper")


@verb(
    "reproduce dart",
    "pyg_clusters.papers.reproduce_dart",
    "Modee et al. 2021: energies of gallium clusters",
    "--out runs/reproduce_dart",
)
@dataclass(kw_only=True)
class ReproduceDartOptions(ReproduceOptions):
    """Reproduce the tables of Modee et al. 2021 (energies of gallium clusters): perform the missing training runs, and
    write tables (Markdown, CSV), figures, and a verdict on each finding of the paper. Repeating the command resumes an
    interrupted run.
    """

    seeds: int = 1
    """number of training runs of each kind, on the same splits"""
    recipe: str | None = None
    """recipe of DART; by default the shipped dart-gallium"""
    gnc: str | None = None
    """folder of the data of the paper (GNC_31-70), to use instead of the shipped data"""

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "seeds")


@verb(
    "reproduce nmr",
    "pyg_clusters.papers.reproduce_nmr",
    "Kaneko et al. 2023: shieldings of sodium clusters",
    "--quick --out runs/reproduce_nmr",
)
@dataclass(kw_only=True)
class ReproduceNmrOptions(ReproduceOptions):
    """Reproduce Kaneko et al. 2023 on the shipped shieldings of sodium clusters: perform the missing fits and training
    runs, and write tables (Markdown, CSV), the figures of the paper, and a verdict on each of its findings. Repeating
    the command resumes an interrupted run.
    """

    seeds: int = 1
    """number of training runs of each kind, on the same folds"""
    epochs: int | None = None
    """maximum number of epochs of a training run; by default 200, or 20 with --quick"""
    recipe: str | None = None
    """recipe of NodeSchNet; by default the shipped sodium-node-schnet"""

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "seeds", "epochs")


@verb(
    "reproduce layers",
    "pyg_clusters.papers.reproduce_layers",
    "ten PyG layers in the same model (no paper)",
    "--out runs/layers",
)
@dataclass(kw_only=True)
class ReproduceLayersOptions(ReproduceOptions):
    """Compare ten message-passing layers in the same model, with the same data, split, head and number of epochs, on
    energies of gallium clusters and shieldings of sodium clusters: perform the missing training runs, and write a table
    (Markdown, CSV) and a figure of error against speed. Repeating the command resumes an interrupted run.
    """

    only: list[str] | None = None
    """names of layers or whole models, for example GCNConv SchNet"""
    targets: list[Target] | None = None
    """properties to learn; by default both"""
    train_clusters: int = 1500
    """number of gallium clusters in the training set"""
    epochs: int = 40
    """number of epochs for energies"""
    shielding_epochs: int = 100
    """number of epochs for shieldings"""
    folds: int = 5
    """number of folds for shieldings, at most five"""
    channels: int = 64
    """number of features per atom"""
    num_layers: int = 3
    """number of layers"""

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "train_clusters", "epochs", "shielding_epochs", "folds", "channels", "num_layers")
        if self.folds > 5:
            raise InputError(f"--folds must be from 1 to 5, got {self.folds}")


@verb("demo", "pyg_clusters.cli.demo", "train, evaluate and screen on the shipped data", "--out runs/demo")
@dataclass(kw_only=True)
class DemoOptions:
    """Run the whole workflow on the shipped data: train DART on gallium clusters for two minutes, evaluate it on unseen
    clusters, score an MD trajectory of Ga57 and select the lowest-energy candidates.
    """

    out: str = "runs/demo"
    """folder of the results"""
    top: int = 100
    """number of candidates"""
