"""Adapter of arbitrary graph layers: import of their class, construction, and inputs from a graph."""

import copy
import difflib
import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch_geometric.nn
from torch import Tensor, nn
from torch_geometric.nn import CGConv, EdgeConv, GINConv, GINEConv, MessagePassing, NNConv
from torch_geometric.nn.models.schnet import CFConv, ShiftedSoftplus

from pyg_clusters.errors import InputError, one_line

NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
"""Kinds of arguments that can be given by name."""


def layer_class(path: str) -> type[nn.Module]:
    """Import a subclass of :class:`torch.nn.Module`.

    Raises:
        InputError: If there is no such class, or it is not a :class:`torch.nn.Module`.

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
        raise InputError(f"no class {path!r} can be imported ({one_line(error)}){hint}") from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise InputError(f"{path} is not a subclass of torch.nn.Module; no other class is allowed")
    return found


def instantiate(value: Any) -> Any:
    """Replace every ``{class_path: ..., init_args: {...}}`` in a value of a recipe by an instance.

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
    """Arguments of a constructor: the instantiated ``given`` ones, and those of ``known`` that it accepts."""
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
    """Create an instance of a class; errors become an :class:`InputError` in one line."""
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
        reason = one_line(error, 300)
        raise InputError(f"{layer.__name__} cannot be created: {type(error).__name__}: {reason}") from error


def layer_and_arguments(
    conv: str | Mapping[str, Any] | type[nn.Module] | nn.Module, arguments: Mapping[str, Any] | None
) -> tuple[type[nn.Module] | nn.Module, str | None, dict[str, Any]]:
    """Layer, its import path (``None`` for an instance), and its arguments."""
    given = dict(arguments or {})
    if isinstance(conv, Mapping):
        unknown = [key for key in conv if key not in ("class_path", "init_args")]
        if unknown or "class_path" not in conv:
            raise InputError(f"conv must have class_path and init_args, got {', '.join(map(str, conv)) or 'nothing'}")
        given = {**(conv.get("init_args") or {}), **given}
        conv = conv["class_path"]
    if isinstance(conv, nn.Module):
        return conv, None, given
    if isinstance(conv, type) and issubclass(conv, nn.Module):
        return conv, f"{conv.__module__}.{conv.__qualname__}", given
    if isinstance(conv, str):
        return layer_class(conv), conv, given
    raise InputError(f"conv must be a layer, its class, or the import path of its class, got {conv!r}")


GRAPH_INPUTS: tuple[str, ...] = ("edge_index", "edge_weight", "edge_attr", "edge_type", "pos", "batch", "z")
"""Names of the inputs that a layer may take in addition to the features of the atoms."""

EDGE_WIDTHS: tuple[str, ...] = ("edge_dim", "in_edge_channels")
"""Names of constructor arguments for the number of edge features."""


@dataclass(frozen=True)
class GraphKind:
    """Numbers of features and cutoff of the graph that a layer is applied to."""

    channels: int  #: Number of features of an atom.
    num_shells: int  #: Number of distance shells.
    #: Maximum length of an edge in Å; with ``None`` every pair is an edge, and edges have no features.
    cutoff: float | None
    num_gaussians: int  #: Number of features of an edge, Gaussians of its length.


class LayerAdapter:
    r"""Factory of layers of one class, which are called with the inputs that their ``forward`` takes.

    Constructor arguments that are not given are set by name:

    - ``in_channels``, ``out_channels``, ``channels``, ``hidden_channels``, ``num_filters`` to the width of the model;
    - ``edge_dim``, ``in_edge_channels`` and ``num_gaussians`` to the number of edge features;
    - ``num_relations`` and ``num_shells`` to the number of shells;
    - ``cutoff`` to the cutoff;
    - ``nn`` of ``GINConv``, ``GINEConv``, ``NNConv``, ``EdgeConv`` and ``CFConv`` to a network of two linear layers.

    The first argument of ``forward`` must be the features of the atoms ``[num_atoms, channels]``. The others are
    matched by name (:data:`GRAPH_INPUTS`): ``edge_index [2, num_edges]`` (source j, target i), ``edge_attr [num_edges,
    num_gaussians]``, ``edge_type [num_edges]`` (the shell), ``edge_weight [num_edges]``, ``pos [num_atoms, 3]`` in Å,
    ``batch`` and ``z [num_atoms]``. The ``edge_weight`` is the distance in Å for a class with an argument ``cutoff``
    (SchNet's layers), and otherwise :math:`(\cos(\pi d / r_c) + 1) / 2`, since layers such as ``GCNConv`` multiply
    messages by it.

    Args:
        layer: A class, or an instance that is copied (and reset) for each layer.
        arguments: Arguments of the constructor; ``{class_path: ..., init_args: {...}}`` stands for a module.
        kind: Graph that the layers are applied to.

    Example:
        >>> from torch_geometric.nn import GATv2Conv
        >>> adapter = LayerAdapter(GATv2Conv, {}, GraphKind(channels=64, num_shells=3, cutoff=6.0, num_gaussians=25))
        >>> adapter.inputs
        ('edge_index', 'edge_attr')
        >>> adapter.make()
        GATv2Conv(64, 64, heads=1)
    """

    def __init__(self, layer: type[nn.Module] | nn.Module, arguments: Mapping[str, Any], kind: GraphKind):
        self.instance = layer if isinstance(layer, nn.Module) else None
        self.layer_class = layer if isinstance(layer, type) else type(layer)
        self.name = self.layer_class.__name__
        self.arguments = dict(arguments)
        self.kind = kind
        self._constructor = dict(inspect.signature(self.layer_class).parameters)
        self.takes_distance = "cutoff" in self._constructor
        self.accepted = self._accepted()
        self.inputs = tuple(name for name in self.accepted if self._is_there(name))
        self._check_arguments()

    def _accepted(self) -> tuple[str, ...]:
        """Names of the graph inputs in the signature of ``forward``."""
        parameters = list(inspect.signature(self.layer_class.forward).parameters.values())[2:]  # self, the features
        for parameter in parameters:
            if parameter.kind in NAMED and parameter.default is parameter.empty and parameter.name not in GRAPH_INPUTS:
                raise InputError(
                    f"{self.name} needs {parameter.name!r}, which the graph does not have: wrap the layer in a module "
                    f"whose forward takes the features and any of {', '.join(GRAPH_INPUTS)}, and computes it from them"
                )
        return tuple(parameter.name for parameter in parameters if parameter.name in GRAPH_INPUTS)

    def _is_there(self, name: str) -> bool:
        if name == "edge_weight":
            return self.kind.cutoff is not None
        if name == "edge_attr":
            source = self.arguments if self.instance is None else vars(self.instance)
            switched_off = any(width in source and not source[width] for width in EDGE_WIDTHS)
            return self.kind.cutoff is not None and not switched_off
        return True

    def _check_arguments(self):
        if self.instance is not None and self.arguments:
            raise InputError(f"conv_args need a class, but {self.name} is an instance: give the class {self.name}")
        own, cutoff = self.arguments.get("cutoff", getattr(self.instance, "cutoff", None)), self.kind.cutoff
        if own is not None and (cutoff is None or own < cutoff):
            reach = "has no cutoff" if cutoff is None else f"has a cutoff of {cutoff} Å"
            raise InputError(
                f"{self.name} has a cutoff of {own} Å, but the graph {reach}: give the cutoff to the model instead"
            )

    def make(self) -> nn.Module:
        """Create a layer."""
        if self.instance is not None:
            return reset_copy(self.instance)
        arguments = self._filled()
        of_edges = [name for name in ("cutoff", "num_gaussians", *EDGE_WIDTHS) if self._must_have(name)]
        if self.kind.cutoff is None and any(name not in arguments for name in of_edges):
            raise InputError(f"{self.name} needs a cutoff: give the model one, for example 6.0 (Å)")
        return make(self.layer_class, arguments)

    def _must_have(self, name: str) -> bool:
        """Whether the constructor requires this argument."""
        return name in self._constructor and self._constructor[name].default is inspect.Parameter.empty

    def _filled(self) -> dict[str, Any]:
        """Arguments of the constructor: the given ones, and those set by name."""
        kind = self.kind
        offers: dict[str, Any] = dict.fromkeys(
            ("in_channels", "out_channels", "channels", "hidden_channels", "num_filters"), kind.channels
        )
        offers |= dict.fromkeys(("num_relations", "num_shells"), kind.num_shells)
        if kind.cutoff is not None:
            offers |= {"cutoff": kind.cutoff, "num_gaussians": kind.num_gaussians}
            if "edge_attr" in self.inputs:
                offers |= dict.fromkeys(EDGE_WIDTHS, kind.num_gaussians)
                if issubclass(self.layer_class, CGConv) or self._must_have("dim"):
                    offers["dim"] = kind.num_gaussians
        arguments = filled(self.layer_class, self.arguments, offers)
        network = self._network(arguments) if "nn" not in arguments else None
        return arguments if network is None else arguments | {"nn": network}

    def _network(self, arguments: Mapping[str, Any]) -> nn.Sequential | None:
        """Argument ``nn`` of the constructor, for the supported classes."""
        channels, edge = self.kind.channels, self.kind.num_gaussians
        if issubclass(self.layer_class, GINConv | GINEConv):
            return two_layers(channels, channels, channels)
        if issubclass(self.layer_class, EdgeConv):
            return two_layers(2 * channels, channels, channels)
        if issubclass(self.layer_class, NNConv):
            return two_layers(edge, channels, arguments["in_channels"] * arguments["out_channels"])
        if issubclass(self.layer_class, CFConv):
            filters = arguments["num_filters"]
            return two_layers(edge, filters, filters, ShiftedSoftplus())
        return None

    def __call__(self, layer: nn.Module, h: Tensor, graph: Mapping[str, Tensor]) -> Tensor:
        """Apply a layer to features ``[num_atoms, channels]`` and a graph with all of :attr:`inputs`."""
        return layer(h, **{name: graph[name] for name in self.inputs})

    @torch.no_grad()
    def check(self, layer: nn.Module):
        """Check a layer in evaluation mode on a cluster of three atoms.

        Raises:
            InputError: If it fails, or the shape of its output is wrong.
        """
        dtype = next((weight.dtype for weight in layer.parameters()), torch.get_default_dtype())
        side = 2.5 if self.kind.cutoff is None else min(2.5, 0.5 * self.kind.cutoff)
        graph = {
            "edge_index": torch.tensor([[1, 2, 0, 2, 0, 1], [0, 0, 1, 1, 2, 2]]),
            "edge_weight": torch.full((6,), side, dtype=dtype),
            "edge_attr": torch.ones(6, self.kind.num_gaussians, dtype=dtype),
            "edge_type": torch.zeros(6, dtype=torch.long),
            "pos": side * torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5, 0.75**0.5, 0.0]], dtype=dtype),
            "batch": torch.zeros(3, dtype=torch.long),
            "z": torch.full((3,), 31),
        }
        try:
            with torch.random.fork_rng(devices=[]):
                out = self(layer, torch.ones(3, self.kind.channels, dtype=dtype), graph)
        except Exception as error:
            reason = one_line(error, 300)
            if "edge_attr" in self.accepted and "edge_attr" not in self.inputs:
                what = "give the model a cutoff" if self.kind.cutoff is None else "do not switch off its edge_dim"
                reason += f"; it takes edge_attr, Gaussians of the distance: {what}"
            raise InputError(
                f"{self.name} fails on a cluster of three atoms: {type(error).__name__}: {reason}"
            ) from error
        channels = self.kind.channels
        if not isinstance(out, Tensor) or out.dim() != 2 or out.size(0) != 3:
            found = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise InputError(f"{self.name} returns {found} for 3 atoms: a layer must return [num_atoms, {channels}]")
        width, asked = out.size(1), getattr(layer, "out_channels", None)
        if width == channels:
            return
        remedy = f"give it the width {channels}"
        if isinstance(asked, int) and (asked * channels) % width == 0 and asked * channels >= width:
            remedy = f"give it out_channels: {asked * channels // width} (conv_args)"
        if getattr(layer, "concat", False) is True:
            remedy += " or concat: false"
        raise InputError(f"{self.name} returns {width} features per atom, the model has {channels}: {remedy}")


def reset_copy(layer: nn.Module) -> nn.Module:
    """Copy a layer and reset its parameters if possible."""
    copied = copy.deepcopy(layer)
    getattr(copied, "reset_parameters", lambda: None)()
    return copied


def two_layers(inputs: int, hidden: int, outputs: int, act: nn.Module | None = None) -> nn.Sequential:
    """Network of two linear layers with an activation in between, by default SiLU."""
    return nn.Sequential(nn.Linear(inputs, hidden), act or nn.SiLU(), nn.Linear(hidden, outputs))
