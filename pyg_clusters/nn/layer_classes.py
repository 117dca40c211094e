"""Classes of layers by their import paths."""

import difflib
import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import torch_geometric.nn
from torch import nn
from torch_geometric.nn import MessagePassing

from pyg_clusters.errors import InputError

NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
"""Kinds of arguments that can be given by name."""


def layer_class(path: str) -> type[nn.Module]:
    """The class of an import path.

    Raises:
        InputError: If there is none, or it is no :class:`torch.nn.Module`. Nothing else is ever called.

    Example:
        >>> layer_class("torch_geometric.nn.GATv2Conv").__name__
        'GATv2Conv'
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        near = f"torch_geometric.nn.{name or path}"
        hint = f"; did you mean {near}?" if hasattr(torch_geometric.nn, name or path) and near != path else ""
        raise InputError(f"no class {path!r} can be imported ({' '.join(str(error).split())[:200]}){hint}") from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise InputError(f"{path} is not a class of torch.nn.Module, and nothing else is made by its name")
    return found


def class_path(layer: type[nn.Module]) -> str:
    """Import path of a class."""
    return f"{layer.__module__}.{layer.__qualname__}"


def instantiate(value: Any) -> Any:
    """A value of a recipe with every ``{class_path: ..., init_args: {...}}`` in it made.

    Raises:
        InputError: If a class cannot be imported, is no :class:`torch.nn.Module`, or cannot be made.

    Example:
        >>> instantiate({"class_path": "torch.nn.Linear", "init_args": {"in_features": 2, "out_features": 3}})
        Linear(in_features=2, out_features=3, bias=True)
    """
    if isinstance(value, list | tuple):
        return type(value)(instantiate(part) for part in value)
    if not isinstance(value, Mapping):
        return value
    if "class_path" not in value:
        return {key: instantiate(part) for key, part in value.items()}
    found = layer_class(value["class_path"])
    return make(found, filled(found, value.get("init_args") or {}, {}))


def filled(layer: type[nn.Module], given: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a constructor: those given, made, and what of the ``known`` it takes besides.

    Raises:
        InputError: If it has no argument of a name that is given.
    """
    parameters = inspect.signature(layer).parameters
    names = list(parameters)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        names += [name for name in inspect.signature(MessagePassing).parameters if name not in names]
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}"
            raise InputError(f"{layer.__name__} has no argument {name!r}; {hint}")
    offered = {name: value for name, value in known.items() if name in parameters}
    return offered | {name: instantiate(value) for name, value in given.items()}


def make(layer: type[nn.Module], arguments: Mapping[str, Any]) -> nn.Module:
    """An instance of a class.

    Raises:
        InputError: If an argument is missing, or the class refuses one: whatever it raises, in one line.
    """
    for name, parameter in inspect.signature(layer).parameters.items():
        if parameter.kind in NAMED and parameter.default is parameter.empty and name not in arguments:
            raise InputError(
                f"{layer.__name__} needs its argument {name!r}: give it in conv_args (a module as class_path and "
                "init_args)"
            )
    try:
        return layer(**arguments)
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{layer.__name__} cannot be made: {type(error).__name__}: {reason}") from error
