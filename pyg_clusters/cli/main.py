"""The command ``pyg-clusters VERB``."""

import importlib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

from pyg_clusters import __version__
from pyg_clusters.errors import InputError, MissingExtra, describe_error, lacks_memory, printable
from pyg_clusters.stopping import Stopped, check_stopped, stopping_on_signals
from pyg_clusters.trusted import trusting_files

VERBS = {
    "train": "train a model from a YAML recipe",
    "evaluate": "compute errors of a trained model on its test set or on labelled frames",
    "ensemble": "combine several runs into an ensemble",
    "calibrate": "calibrate prediction intervals on held-out errors",
    "benchmark-screening": "benchmark selection strategies on frames of known energy",
    "convert": "convert frames of any format to one HDF5 store",
    "predict": "predict energies of frames, or shieldings of their atoms",
    "merge": "merge the predictions of a job array",
    "spectrum": "compute NMR spectra from predicted shieldings",
    "screen": "select the lowest-energy candidates of a trajectory",
    "compare-dft": "compare DFT results with predictions",
    "generate": "generate random clusters, or search for distinct minima",
    "relax": "relax clusters to local minima",
    "label": "label clusters with energies and forces, or with DFT shieldings",
    "describe": "compute g(r), shell radii, shell counts and isomers with equal counts",
    "analyse": "analyse core and surface atoms",
    "reproduce": "reproduce the tables of a paper",
    "info": "summarise a file of frames, a run or a model",
    "demo": "train, evaluate and screen on the shipped data",
}
"""The verbs and their purposes; each is a module of this package (- is _ in its name) with a function ``run(argv)``."""

PACKAGE = Path(__file__).parents[1]

USAGE = f"""usage: pyg-clusters VERB [ARGUMENTS]    (pyg-clusters VERB --help lists the arguments)

{os.linesep.join(f"  {verb:<20} {purpose}" for verb, purpose in VERBS.items())}

options of every verb:
  --debug    show the traceback of an error
  --trust    import any class named in the folder of a model or run, which may run code from that folder
  --version  print the version
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb.

    Returns:
        The exit code: 0 on success, 2 after an error in the input, 130 after SIGINT, 143 after SIGTERM, and 1 after an
        unexpected error.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug, trust = "--debug" in arguments, "--trust" in arguments
    arguments = [argument for argument in arguments if argument not in ("--debug", "--trust")]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        return _fail(f"unknown verb {verb!r}; there are {', '.join(VERBS)}")
    strange = next((argument for argument in rest if not _is_utf8(argument)), None)
    if strange is not None:
        return _fail(f"{strange!a}: the name is not UTF-8; rename the file")
    _shorten_warnings()
    try:
        with stopping_on_signals(), trusting_files(trust):
            try:
                importlib.import_module(f"pyg_clusters.cli.{verb.replace('-', '_')}").run(rest)
            finally:
                check_stopped()  # a library may have swallowed the signal
    except (InputError, MissingExtra) as error:
        if debug:
            raise
        return _fail(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt as error:
        stopped = error if isinstance(error, Stopped) else Stopped(signal.SIGINT)
        print(f"pyg-clusters: {stopped}", file=sys.stderr)
        return stopped.exit_code
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError) and error.filename is not None:
            return _fail(f"{error.filename}: {error.strerror}")
        if lacks_memory(error):
            return _fail(
                f"{describe_error(error)}; use a machine with more memory, or smaller clusters, batches or models"
            )
        _fail(f"unexpected {describe_error(error)} ({_origin(error)}); please report it with the output of --debug")
        return 1
    return 0


def _origin(error: BaseException) -> str:
    """File and line of this package where an error arose."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if PACKAGE in Path(frame.filename).parents]
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}"


def _is_utf8(argument: str) -> bool:
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fail(message: str) -> int:
    print("pyg-clusters: " + printable(" ".join(message.split())), file=sys.stderr)
    return 2


def _shorten_warnings():
    """Print warnings of this package as one line, and hide those of libraries."""

    def show(message, category, filename, lineno, file=None, line=None):
        print(f"warning: {message}", file=sys.stderr)

    warnings.showwarning = show
    for module in ("pytorch_lightning", "torch", "lightning_utilities", "jsonargparse", "torch_geometric"):
        warnings.filterwarnings("ignore", module=module)
