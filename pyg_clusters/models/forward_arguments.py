"""Further arguments of models besides atoms, positions and cluster indices."""

import inspect
from collections.abc import Container

from torch import nn

from pyg_clusters.errors import InputError
from pyg_clusters.models.ensemble import Ensemble


def extra_arguments(model: nn.Module) -> dict[str, bool]:
    """Names of what ``model(z, pos, batch, ...)`` takes besides its first three arguments, and whether it must have it.

    What a data set holds under such a name (``x``, ``edge_index``, a descriptor of its own) is given to the model.
    An ensemble takes what its members take.
    """
    if isinstance(model, Ensemble):
        model = model.members[0]
    parameters = list(inspect.signature(model.forward).parameters.values())
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: p.default is p.empty for p in parameters[3:] if p.kind in named}


def check_extra_arguments(model: nn.Module, present: Container[str], remedy: str):
    """Checks that a model is given what it must have.

    Args:
        model: The model.
        present: Names that are there; whatever ``in`` works on.
        remedy: What to do otherwise, the end of the message.

    Raises:
        InputError: Naming what is missing.
    """
    missing = [name for name, needed in extra_arguments(model).items() if needed and name not in present]
    if missing:
        raise InputError(f"{type(model).__name__} must be given {', '.join(missing)}: {remedy}")
