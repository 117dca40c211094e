"""Model built from any PyG layer or model."""

import json
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch_geometric.nn.models.schnet import GaussianSmearing

from pyg_clusters.errors import InputError, check_choice
from pyg_clusters.geometry import (
    GALLIUM_RADII,
    batch_to_ptr,
    check_radii,
    check_shells,
    one_cluster,
    shell_of,
    squared_distance,
    sum_over_clusters,
)
from pyg_clusters.models.training_domain import TrainingDomain
from pyg_clusters.nn.inputs import InputScale
from pyg_clusters.nn.layer_adapter import GraphKind, LayerAdapter, layer_and_arguments, two_layers
from pyg_clusters.nn.output_scale import MAX_ATOMIC_NUMBER, EnergyScale
from pyg_clusters.nn.pyg_model_adapter import WholeModel, is_whole, whole_model
from pyg_clusters.nn.shielding_scale import ShieldingScale
from pyg_clusters.pairs import all_pairs, check_complete, edge_shell_counts, radius_pairs, shell_counts
from pyg_clusters.positions import usable_positions


class LayeredModel(nn.Module):
    r"""Model with any graph layer between an embedding of the atoms and a value per atom or cluster.

    .. math::
        \mathbf{h}^0_i = \mathrm{embed}(z_i, \mathbf{x}_i), \qquad
        \mathbf{h}^{l+1}_i = \mathbf{h}^l_i + \mathrm{SiLU}\big(\mathrm{norm}(\mathrm{conv}^l(\mathbf{h}^l)_i)\big),
        \qquad r_i = \mathrm{MLP}(\mathbf{h}^L_i)

    where :math:`\mathbf{x}_i` is the topological atomic descriptor, the number of neighbours in each shell, and norm
    is layer normalisation. The energy is the sum of :math:`o(z_i) + s\,r_i` over the cluster
    (:class:`~pyg_clusters.nn.EnergyScale`); the shielding of an atom is its scaled output
    (:class:`~pyg_clusters.nn.ShieldingScale`).

    The convolution can be any layer of PyG or your own. The arguments of its constructor and of its ``forward`` are
    matched by name (:class:`~pyg_clusters.nn.LayerAdapter`). It must return as many features as it takes. Edges connect
    all pairs closer than the cutoff, or all pairs without a cutoff; no neighbour is dropped.

    A complete model that takes ``(z, pos, batch)`` (``SchNet``, ``DimeNet``, ``DimeNetPlusPlus``, ``ViSNet``) can
    replace the convolution (:class:`~pyg_clusters.nn.WholeModel`). Then only offset and scale are added,
    ``num_layers`` is its number of blocks, and given edges and counts are ignored.

    Args:
        conv (str, type or torch.nn.Module): Import path of a class, the class itself, a mapping of ``class_path`` and
            ``init_args``, or an instance. An instance is copied for each layer and its copies are reset; a model with
            an instance cannot be saved.
        num_layers (int): Number of layers.
        hidden_channels (int): Number of features of an atom.
        conv_args (dict, optional): Further arguments of the class.
        embedding (str): Initial features of an atom: its counts (``"tad"``), its ``"element"``, or ``"both"``.
        target (str): ``"energy"`` of a cluster in eV or ``"shielding"`` of each atom in ppm.
        radii (sequence of float): Shell radii in Å, for the counts and for ``edge_type``.
        cutoff (float, optional): Maximum length of an edge in Å, exclusive. With ``None`` every pair is an edge without
            features, for layers that distinguish shells.
        num_gaussians (int): Number of Gaussians in the expansion of an edge length, at least two.
        transform (bool): For shieldings: see :class:`~pyg_clusters.nn.ShieldingScale`.

    Raises:
        InputError: If the layer cannot be imported, created or used; the message names the missing argument.

    Example:
        >>> import torch
        >>> model = LayeredModel("torch_geometric.nn.GATv2Conv", num_layers=2, conv_args={"heads": 4, "concat": False})
        >>> z, batch = torch.tensor([31, 31]), torch.tensor([0, 0])
        >>> pos = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.7]])
        >>> model(z, pos, batch).shape
        torch.Size([1])
    """

    def __init__(
        self,
        conv: str | dict | type[nn.Module] | nn.Module,
        num_layers: int = 3,
        hidden_channels: int = 64,
        conv_args: dict | None = None,  # not dict[str, Any]: the parser of recipes would create modules for Any
        embedding: Literal["tad", "element", "both"] = "both",
        target: Literal["energy", "shielding"] = "energy",
        radii: tuple[float, ...] = GALLIUM_RADII,
        cutoff: float | None = 6.0,
        num_gaussians: int = 25,
        transform: bool = False,
    ):
        super().__init__()
        for name, value, least in (
            ("num_layers", num_layers, 1),
            ("hidden_channels", hidden_channels, 2),
            ("num_gaussians", num_gaussians, 2),
        ):
            if value < least:
                raise InputError(f"{name} must be at least {least}, got {value}")
        check_choice("embedding", embedding, ("tad", "element", "both"))
        check_choice("target", target, ("energy", "shielding"))
        if transform and target == "energy":
            raise InputError("transform is for shieldings (target: shielding), not for energies")
        found, self._conv, self._conv_args = layer_and_arguments(conv, conv_args)
        self.num_layers = num_layers
        self.hidden_channels = hidden_channels
        self.embedding = embedding
        self.target = target
        self.radii = check_radii(radii)
        self.cutoff = None if cutoff is None else check_radii([cutoff])[0]
        self.num_gaussians = num_gaussians
        self.transform = transform

        num_shells = len(self.radii) + 1
        self.whole: WholeModel | None = None
        if is_whole(found):
            self.whole = whole_model(found, self._conv_args, hidden_channels, num_layers, num_gaussians, self.cutoff)
        else:
            kind = GraphKind(hidden_channels, num_shells, self.cutoff, num_gaussians)
            self.adapter = LayerAdapter(found, self._conv_args, kind)
            self.counts = InputScale(num_shells) if embedding != "element" else None
            self.count_embedding = nn.Linear(num_shells, hidden_channels) if embedding != "element" else None
            self.element_embedding = (
                nn.Embedding(MAX_ATOMIC_NUMBER + 1, hidden_channels) if embedding != "tad" else None
            )
            self.convs = nn.ModuleList(self.adapter.make() for _ in range(num_layers))
            self.norms = nn.ModuleList(nn.LayerNorm(hidden_channels) for _ in range(num_layers))
            self.act = nn.SiLU()
            self.head = two_layers(hidden_channels, hidden_channels // 2, 1)
            if self.cutoff is not None:
                self.distance_expansion = GaussianSmearing(0.0, self.cutoff, num_gaussians)
            for layer in self.convs:
                training = layer.training
                self.adapter.check(layer.eval())
                layer.train(training)
        self.scale: EnergyScale | ShieldingScale = EnergyScale() if target == "energy" else ShieldingScale(transform)
        self.domain = TrainingDomain()

    @property
    def conv(self) -> str:
        """Import path of the layer, for saving.

        Raises:
            TypeError: If the model cannot be saved.
        """
        if self._conv is None:
            raise TypeError(
                "a LayeredModel of an instance cannot be saved, as its arguments are not known: give the class (conv) "
                "and its arguments (conv_args)"
            )
        if "<locals>" in self._conv:
            raise TypeError(
                f"{self._conv} cannot be imported: define the class at the top of a module to save the model"
            )
        return self._conv

    @property
    def conv_args(self) -> dict[str, Any]:
        """Arguments of the layer, for saving.

        Raises:
            TypeError: If an argument cannot be written as JSON.
        """
        try:
            json.dumps(self._conv_args)
        except TypeError as error:
            raise TypeError(f"conv_args: {error}; name modules as {{class_path: ..., init_args: ...}}") from error
        return self._conv_args

    def reset_parameters(self):
        """Reset all layers, and the scale to its state before fitting."""
        for module in self.children():
            layers = module if isinstance(module, nn.ModuleList | nn.Sequential) else [module]
            for layer in layers:
                getattr(layer, "reset_parameters", lambda: None)()

    def forward(
        self,
        z: Tensor,
        pos: Tensor | None,
        batch: Tensor | None = None,
        *,
        x: Tensor | None = None,
        edge_index: Tensor | None = None,
        edge_weight: Tensor | None = None,
        edge_type: Tensor | None = None,
    ) -> Tensor:
        """Energies of the clusters ``[num_graphs]`` in eV, or shieldings of the atoms ``[num_atoms]`` in ppm.

        Args:
            z: Atomic numbers ``[num_atoms]``.
            pos: Positions ``[num_atoms, 3]`` in Å; may be ``None`` if counts and edges are given.
            batch: Cluster index of each atom ``[num_atoms]``, sorted; one cluster if not given.
            x: Counts of neighbours ``[num_atoms, num_shells]``, if already computed.
            edge_index: Pairs ``[2, num_edges]`` (source j, target i), if already computed; pairs at or beyond the
                cutoff are dropped.
            edge_weight: Distances of the pairs ``[num_edges]`` in Å.
            edge_type: Shells of the pairs ``[num_edges]``.

        Raises:
            InputError: If an input of the layer is neither given nor can be computed.
        """
        batch = one_cluster(pos, x, z) if batch is None else batch
        graph = {"x": x, "edge_index": edge_index, "edge_weight": edge_weight, "edge_type": edge_type}
        values = self.atomic_values(z, pos, batch, **graph)
        return values if self.target == "shielding" else sum_over_clusters(values, batch)

    def atomic_values(
        self, z: Tensor, pos: Tensor | None, batch: Tensor | None = None, **graph: Tensor | None
    ) -> Tensor:
        """Contributions of the atoms to the energy in eV, or their shieldings in ppm, ``[num_atoms]``.

        The arguments are those of :meth:`forward`.
        """
        self.domain.check(z)
        batch = one_cluster(pos, graph.get("x"), z) if batch is None else batch
        pos, defect = (None, 0.0) if pos is None else usable_positions(pos, batch)
        if self.whole is not None:
            if pos is None:
                raise InputError(f"{type(self.whole.model).__name__} needs positions")
            raw = self.whole(z, pos, batch)
        else:
            raw = self._raw(z, pos, batch, **graph)
        raw = raw + defect
        return self.scale(raw, z)

    def _raw(
        self, z: Tensor, pos: Tensor | None, batch: Tensor, x: Tensor | None = None, **given: Tensor | None
    ) -> Tensor:
        graph = self._graph(pos, batch, **given) | {"batch": batch}
        if z is not None:
            graph["z"] = z
        if self.counts is not None and x is None:
            every_pair = self.cutoff is None and (given.get("edge_index") is None or pos is None)
            x = self._counts(pos, batch, graph if every_pair else {})
        missing = [name for name in self.adapter.inputs if name not in graph]
        if missing:
            raise InputError(f"{self.adapter.name} takes {', '.join(missing)}: give positions or these arguments")
        h = self._embed(z, x)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = h + self.act(norm(self.adapter(conv, h, graph)))  # [num_atoms, hidden_channels]
        return self.head(h).squeeze(-1)  # [num_atoms]

    def _embed(self, z: Tensor | None, x: Tensor | None) -> Tensor:
        """Embedding of the atoms ``[num_atoms, hidden_channels]``."""
        parts = []
        if self.counts is not None and self.count_embedding is not None:
            if x is None or x.size(-1) != self.counts.num_features:
                found = "none" if x is None else str(x.size(-1))
                raise InputError(f"counts in {self.counts.num_features} shells are needed for each atom, got {found}")
            parts.append(self.count_embedding(self.counts(x.to(self.counts.mean.dtype))))
        if self.element_embedding is not None:
            if z is None:
                raise InputError("atomic numbers z are needed for the embedding of elements (or give embedding: tad)")
            parts.append(self.element_embedding(z))
        return sum(parts[1:], parts[0])

    def _counts(self, pos: Tensor | None, batch: Tensor, graph: Mapping[str, Tensor]) -> Tensor:
        """Neighbours per shell ``[num_atoms, num_shells]``, from a complete graph or from positions."""
        if "edge_type" in graph:
            check_complete(graph["edge_index"], batch)
            return edge_shell_counts(graph["edge_index"], graph["edge_type"], batch.numel(), len(self.radii) + 1)
        if pos is None:
            raise InputError("counts of neighbours are needed: give positions or x (or embedding: element)")
        return shell_counts(pos.detach(), batch_to_ptr(batch), self.radii)

    def _graph(
        self,
        pos: Tensor | None,
        batch: Tensor,
        edge_index: Tensor | None = None,
        edge_weight: Tensor | None = None,
        edge_type: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Edges within the cutoff and their available attributes."""
        edge_index, distance = self._edges(pos, batch, edge_index, edge_weight)
        if self.cutoff is not None and distance is not None:
            inside = distance < self.cutoff
            if not bool(inside.all()):
                edge_index, distance = edge_index[:, inside], distance[inside]
                edge_type = None if edge_type is None else edge_type[inside]
        graph = {"edge_index": edge_index}
        dtype = next(self.head.parameters()).dtype
        if pos is not None:
            graph["pos"] = pos.to(dtype)
        if edge_type is not None:
            check_shells(edge_type, len(self.radii) + 1)
            graph["edge_type"] = edge_type
        elif pos is not None:
            squared = squared_distance(pos.detach()[edge_index[0]], pos.detach()[edge_index[1]])
            graph["edge_type"] = shell_of(squared, self.radii)
        if self.cutoff is not None and distance is not None:
            distance = distance.to(dtype)
            closeness = 0.5 * (torch.cos(torch.pi * distance / self.cutoff) + 1)
            graph["edge_weight"] = distance if self.adapter.takes_distance else closeness
            if "edge_attr" in self.adapter.inputs:
                graph["edge_attr"] = self.distance_expansion(distance)  # [num_edges, num_gaussians]
        return graph

    def _edges(
        self, pos: Tensor | None, batch: Tensor, edge_index: Tensor | None, edge_weight: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Pairs and, if available, their distances in Å."""
        if edge_index is not None:
            if edge_weight is None and pos is not None:
                edge_weight = squared_distance(pos[edge_index[0]], pos[edge_index[1]]).sqrt()
            if edge_weight is None and self.cutoff is not None:
                raise InputError(f"a model with a cutoff of {self.cutoff} Å needs distances: give pos or edge_weight")
            return edge_index, edge_weight
        if pos is None:
            raise InputError("a LayeredModel needs positions, or edges (edge_index) and their distances (edge_weight)")
        ptr = batch_to_ptr(batch)
        return (all_pairs(ptr), None) if self.cutoff is None else radius_pairs(pos, ptr, self.cutoff)
