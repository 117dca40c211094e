"""``pyg-clusters train``."""

from collections.abc import Sequence

HELP = """usage: pyg-clusters train RECIPE --out RUN [OPTIONS]
       pyg-clusters train --resume RUN [OPTIONS]

Train a model from a YAML recipe. The folder of the run holds the resolved configuration, metrics.csv (a row per
epoch), the best model, the state to resume from, the split, and at the end predictions, errors and figures of the test
set. A run that was stopped, even killed, resumes as if it had not been.

  RECIPE, --config RECIPE    YAML file, or a name of pyg-clusters recipes (pyg-clusters new-recipe writes one for your
                             own files); a later --config overrides values of an earlier one
  --out FOLDER               folder of the run (default: runs/run)
  --resume RUN               resume a run; a finished one with a larger --trainer.max_epochs
  --init-from MODEL          start from the weights of a trained model: a folder, or the name of a pretrained model
  --ensemble N               train N members with the seeds 0 to N - 1 on one split, in folders under --out, which is
                             then used like the folder of a run
  --workers N                members that are trained in parallel (default: 2)
  --seed_everything N        seed of weights and order

Every value of a recipe is an option too, and every class can be replaced by its name or import path:
  --data.dataset CLASS       data set; its arguments are --data.dataset.NAME VALUE
  --data.split KIND          group, random, size, fold, paper, or the folder of a saved split
  --data.batch_size N        clusters in a batch
  --data.copies_together true    keep copies of a structure in one part of the split
  --model CLASS              EnergyTraining, ForceTraining or ShieldingTraining
  --model.model CLASS        model, for example DART or pyg_clusters.models.SmoothDART
  --model.optimizer CLASS    optimiser; --model.scheduler CLASS: schedule of the learning rate
  --trainer.max_epochs N     maximum number of epochs
  --trainer.max_time DD:HH:MM:SS    end after the epoch in which this time is reached; earlier parts of the run count
  --trainer.logger NAME      csv, tensorboard or wandb, with the files in RUN/logs
  --trainer.accelerator gpu --trainer.devices 2 ...    any argument of the Trainer of PyTorch Lightning

  --config RECIPE --print_config    print all values with their defaults, and exit

example: pyg-clusters train dart-gallium --out runs/dart
"""


def run(argv: Sequence[str]):
    """Train a model from a YAML recipe, or print the help."""
    if any(argument in ("-h", "--help") for argument in argv):
        print(HELP, end="")
        raise SystemExit(0)
    from pyg_clusters.training.train import train

    train(argv)
