"""Options of the verbs for reproducing papers."""

from dataclasses import dataclass
from typing import Literal

from pyg_clusters.errors import InputError
from pyg_clusters.options import VERBS, Verb, check_counts, verb

Target = Literal["energy", "shielding"]


@dataclass(kw_only=True)
class ReproduceOptions:
    """Runs and results of a reproduction."""

    quick: bool = False
    """train for a few epochs only, to test that everything works, in ten minutes or less"""
    only: list[str] | None = None
    """tables, trainings or methods by name: 'Table 2', dart_without_k, lasso_both"""
    workers: int = 2
    """trainings in parallel, one thread each"""
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
    """Reproduce the tables of Modee et al. 2021 (energies of gallium clusters): run the missing trainings, and write
    tables (Markdown, CSV), figures, and the verdict on each finding of the paper. Repeating the command resumes a
    stopped run.
    """

    seeds: int = 1
    """number of trainings of each kind; the splits stay the same"""
    recipe: str | None = None
    """recipe of DART; dart_gallium.yaml by default"""
    gnc: str | None = None
    """folder of the paper's own data (GNC_31-70), used instead of the shipped data"""

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
    """Reproduce Kaneko et al. 2023 on the shipped shieldings of sodium clusters: run the missing fits and trainings,
    and write tables (Markdown, CSV), the figures of the paper, and the verdict on each of its findings. Repeating the
    command resumes a stopped run.
    """

    seeds: int = 1
    """number of trainings of each kind; the folds stay the same"""
    epochs: int | None = None
    """maximum number of epochs of a training; 200 by default, 20 with --quick"""
    recipe: str | None = None
    """recipe of NodeSchNet; sodium_node_schnet.yaml by default"""

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "seeds", "epochs")


@verb(
    "reproduce layers",
    "pyg_clusters.papers.reproduce_layers",
    "no paper: ten layers of PyG in the same model",
    "--out runs/layers",
)
@dataclass(kw_only=True)
class ReproduceLayersOptions(ReproduceOptions):
    """Compare ten message-passing layers in the same model on the same data, split, head and number of epochs: energies
    of gallium clusters and shieldings of sodium clusters. Runs the missing trainings, and writes a table (Markdown,
    CSV) and a figure of error against speed. Repeating the command resumes a stopped run.
    """

    only: list[str] | None = None
    """names of layers or whole models, for example GCNConv SchNet"""
    targets: list[Target] | None = None
    """properties to learn; both by default"""
    train_clusters: int = 1500
    """number of gallium clusters to train on"""
    epochs: int = 40
    """epochs of the energies"""
    shielding_epochs: int = 100
    """epochs of the shieldings"""
    folds: int = 5
    """folds of the shieldings, of five"""
    channels: int = 64
    """features of an atom"""
    num_layers: int = 3
    """number of layers"""

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "train_clusters", "epochs", "shielding_epochs", "folds", "channels", "num_layers")
        if self.folds > 5:
            raise InputError(f"--folds must be from 1 to 5, got {self.folds}")


@verb("demo", "pyg_clusters.cli.demo.demo", "train, evaluate and screen on the shipped data", "--out runs/demo")
@dataclass(kw_only=True)
class DemoOptions:
    """Run the whole workflow on the shipped data: train DART on gallium clusters for two minutes, evaluate it on unseen
    clusters, score an MD trajectory of Ga57 and select the lowest-energy candidates.
    """

    out: str = "runs/demo"
    """folder of the results"""
    top: int = 100
    """number of candidates"""
