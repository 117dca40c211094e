"""Classes that files may name; other classes are imported only if the user trusts the file."""

import importlib
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from pyg_clusters.errors import InputError, describe_error

TRUSTED: dict[str, frozenset[str]] = {
    package: frozenset(names.split())
    for package, names in {
        "pyg_clusters.models": "DART SmoothDART AlloyDART HDNN NodeSchNet LayeredModel ShieldingDART ShieldingLasso",
        "pyg_clusters.transforms": "RadiusGraph RunningCoordination ShellGraph SymmetryFunctions TopologicalDescriptor",
        "pyg_clusters.datasets": "UnrelaxedOnly ClusterDataset CopperGoldClusters GNC GalliumClusters OnDiskClusters "
        "PublishedDescriptors SodiumShielding",
        "pyg_clusters.losses": "SortedPenaltyLoss",
        "pyg_clusters.nn": "ShellConv",
        "pyg_clusters.training": "AdamWWithSGD EnergyTraining ForceTraining ShieldingTraining adam fast_adam plateau",
        "torch_geometric.nn": "CGConv DimeNet DimeNetPlusPlus EdgeConv FiLMConv GATConv GATv2Conv GCNConv GINConv "
        "GINEConv GeneralConv GraphConv MLP NNConv RGATConv RGCNConv SAGEConv SchNet TransformerConv ViSNet",
        "torch_geometric.nn.models.schnet": "CFConv InteractionBlock ShiftedSoftplus",
        "torch.nn": "ELU GELU HuberLoss L1Loss LeakyReLU Linear MSELoss ReLU SiLU Sigmoid SmoothL1Loss Softplus Tanh",
        "torch.optim": "Adagrad Adam AdamW Adamax NAdam RAdam RMSprop SGD",
        "torch.optim.lr_scheduler": "ConstantLR CosineAnnealingLR CosineAnnealingWarmRestarts CyclicLR ExponentialLR "
        "LinearLR MultiStepLR OneCycleLR PolynomialLR ReduceLROnPlateau StepLR",
        "pytorch_lightning.callbacks": "EarlyStopping LearningRateMonitor",
    }.items()
}
"""Classes by package: our own, and those of PyTorch, PyG and Lightning that take plain values only."""

CLASS_KEYS: frozenset[str] = frozenset(
    "callbacks class_path conv dataset interaction_graph logger loss model nn optimizer plugins pre_filter "
    "pre_transform prior_model profiler scheduler transform".split()
)
"""Arguments whose strings are names of classes or functions."""

GROUP_KEYS: frozenset[str] = frozenset("config data init_args trainer".split())
"""Groups of arguments for which a string is the name of a file with further arguments."""

WORDS: frozenset[str] = frozenset(
    "abs across-relation add advanced additive additive-self-attention auto batch_norm cos dot_product elu epoch gelu "
    "glorot_orthogonal graph_norm instance_norm layer_norm leaky_relu linear max mean min mul "
    "multiplicative-self-attention none relu rel selu sigmoid silu simple softmax softplus source_to_target std step "
    "sum swish tanh target_to_source train_mae triangular val_loss val_mae val_rmse var within-relation zeros".split()
)
"""Strings that may be passed to classes of other packages."""

REMEDY: str = "if you trust where the file comes from, add --trust (trust=True)"

PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)  # import path of a class
DEEPEST: int = 20  # maximum depth of nested lists and mappings

MOST_VALUES: int = 100_000
"""Maximum number of values of a configuration, counting every repetition by YAML aliases."""

_everything: ContextVar[bool] = ContextVar("trust_everything", default=False)


@contextmanager
def trusting_files(trust: bool = True) -> Iterator[None]:
    """Allow files to name any class within the block if ``trust`` is true; importing a class runs its code."""
    token = _everything.set(trust or _everything.get())
    try:
        yield
    finally:
        _everything.reset(token)


def trusts_files() -> bool:
    """Whether files may name any class."""
    return _everything.get()


def check_trusted(configuration: object, file: str | os.PathLike[str], key: str = ""):
    """Check that a configuration names only classes of :data:`TRUSTED`, before anything is imported.

    Checking names is not sufficient, as some classes of well-known packages evaluate strings. Classes of other packages
    may therefore be given only numbers, lists, known words and trusted classes.

    Args:
        configuration: Values of a JSON or YAML file.
        file: Name of the file, for the message.
        key: Key of the configuration in its parent, for example ``"conv"``.

    Example:
        >>> check_trusted({"class_path": "pyg_clusters.models.DART", "init_args": {"radii": [3.5]}}, "model.json")
        >>> check_trusted({"class_path": "my_models.Net", "init_args": {}}, "model.json")
        Traceback (most recent call last):
        pyg_clusters.errors.InputError: model.json names my_models.Net, ... add --trust (trust=True)
    """
    check_extent(configuration, file)
    if not trusts_files():
        _check(configuration, os.fspath(file), key, True, 0)


def check_extent(configuration: object, file: str | os.PathLike[str]):
    """Check the size of a configuration, which a few lines of YAML with aliases can make infinite.

    Raises:
        InputError: If it has more than :data:`MOST_VALUES` values.

    Example:
        >>> endless = {}
        >>> endless["model"] = endless
        >>> check_extent(endless, "recipe.yaml")
        Traceback (most recent call last):
        pyg_clusters.errors.InputError: recipe.yaml: more than 100,000 values, ...
    """
    count, waiting = 0, [configuration]
    while waiting:
        value = waiting.pop()
        count += 1
        if count > MOST_VALUES:
            raise InputError(f"{file}: more than {MOST_VALUES:,} values, or aliases (*name) that repeat so many")
        if isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value


def _check(value: object, file: str, key: str, own: bool, depth: int):
    """Check a value; ``own`` is true if it is passed to a class of this package."""
    if depth > DEEPEST:
        raise InputError(f"{file}: {key} is nested more than {DEEPEST} levels deep; use fewer levels")
    if isinstance(value, Mapping):
        if "class_path" in value:
            own = _check_class(value, file)
            value = value.get("init_args") or {}
            if not isinstance(value, Mapping):
                raise InputError(f"{file}: init_args must be a mapping of names to values, got {str(value)[:80]!r}")
        for name, part in value.items():
            inner = own and name != "conv_args"  # goes to a layer of any package
            _check(part, file, str(name), inner, depth + 1)
    elif isinstance(value, list | tuple):
        for part in value:
            _check(part, file, key, own, depth + 1)
    elif isinstance(value, str):
        if key in CLASS_KEYS | GROUP_KEYS and not (key in CLASS_KEYS and is_trusted(value)) and value not in WORDS:
            raise _refusal(value, file)
        if not own and value not in WORDS and not is_trusted(value):
            raise InputError(f"{file}: {key} is {value[:80]!r}, which is not a known argument of layers; {REMEDY}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{file}: {key} is {value}; a finite number is needed")
    elif value is not None and not isinstance(value, bool | int | float):
        raise InputError(f"{file}: {key} is a {type(value).__name__}; a number, text or a list of them is needed")


def _check_class(value: Mapping, file: str) -> bool:
    """Check the class of a ``class_path``, and return whether it belongs to this package."""
    path, unknown = value["class_path"], [key for key in value if key not in ("class_path", "init_args")]
    if not isinstance(path, str):
        raise InputError(f"{file}: class_path must be the import path of a class, got {str(path)[:80]!r}")
    if not is_trusted(path):
        raise _refusal(path, file)
    if unknown:
        raise InputError(
            f"{file}: {path} has {', '.join(map(repr, unknown))[:80]} in addition to class_path and init_args"
        )
    return path.startswith("pyg_clusters.")


def _refusal(path: str, file: str) -> InputError:
    return InputError(
        f"{file} names {path[:120]}, which is not on the list of trusted classes: importing it could run any "
        f"code; {REMEDY}"
    )


def is_trusted(path: str) -> bool:
    """Whether an import path leads to a class of :data:`TRUSTED`, through its package or one of its modules."""
    module, _, name = path.rpartition(".")
    if not PATH.fullmatch(path):
        return False
    return any(
        name in names and (module == package or module.startswith(f"{package}.")) for package, names in TRUSTED.items()
    )


def names_of_classes(configuration: object, key: str = "") -> Iterator[str]:
    """Yield the import paths that a configuration names."""
    if isinstance(configuration, Mapping):
        for name, part in configuration.items():
            yield from names_of_classes(part, str(name))
    elif isinstance(configuration, list | tuple):
        for part in configuration:
            yield from names_of_classes(part, key)
    elif isinstance(configuration, str) and key in CLASS_KEYS and PATH.fullmatch(configuration):
        yield configuration


@contextmanager
def current_folder() -> Iterator[None]:
    """Search the current folder for modules within the block, after all other locations."""
    folder = os.getcwd()
    sys.path.append(folder)
    try:
        yield
    finally:
        del sys.path[len(sys.path) - 1 - sys.path[::-1].index(folder)]


def import_named(paths: Iterable[str]):
    """Import the modules of classes named by the user, which may be files in the current folder.

    Missing modules are reported later, when the class is instantiated.

    Raises:
        InputError: If importing a module fails.
    """
    for path in paths:
        module, root = path.rpartition(".")[0], path.partition(".")[0]
        if root in sys.modules:
            continue
        try:
            with current_folder():
                importlib.import_module(module)
        except Exception as error:  # raised by the user's code
            if isinstance(error, ModuleNotFoundError) and error.name == root:
                continue
            raise InputError(f"{path} cannot be imported: {describe_error(error)}") from error
