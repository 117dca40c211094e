"""DART: energies of clusters from the numbers of neighbours in distance shells."""

import codecs
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.nn import MLP

from pyg_clusters.geometry import (
    GALLIUM_RADII,
    batch_to_ptr,
    beyond_masks,
    check_radii,
    check_shells,
    is_traced,
    masks_to_counts,
    one_cluster,
    pad_clusters,
    pad_values,
    sum_over_clusters,
)
from pyg_clusters.models.fast_dart import FusedDART, TabulatedDART
from pyg_clusters.models.training_domain import TrainingDomain
from pyg_clusters.nn.inputs import reset_parameters
from pyg_clusters.nn.output_scale import EnergyScale
from pyg_clusters.nn.shell_conv import ShellConv, combine_near
from pyg_clusters.pairs import check_complete, distinct_counts, edge_shell_counts, is_large, near_shells
from pyg_clusters.positions import usable_positions

NUMPY_NUMBERS: list = [
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),  # the name before NumPy 2
    np.float64(0).__reduce__()[0],
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
    codecs.encode,
]
"""Classes and functions in a pickled NumPy number; the published checkpoints contain losses besides the weights."""


class AtomicEnergies(NamedTuple):
    """Energies and features of atoms."""

    energy: Tensor  #: Contribution of the atom to the energy of its cluster, ``[num_atoms]`` in eV.
    features: Tensor  #: Output of the last hidden layer of the interaction network, ``[num_atoms, 32]``.


class DART(nn.Module):
    r"""The network of `"DART: Deep learning enabled topological interaction model for energy prediction of metal
    clusters and its application in identifying unique low energy isomers" <https://doi.org/10.1039/d1cp02956h>`_
    (Modee et al. 2021, section 2.3, Eqs. 1-7, Table 1).

    .. math::
        E = \sum_i \mathrm{MLP}_{int}\Big(\mathrm{MLP}_f(\mathbf{x}_i) + \sum_{s \in \{J, K, L\}} \sum_{j \in
        \mathcal{N}_s(i)} \mathrm{MLP}_s(\mathbf{x}_j)\Big)

    where :math:`\mathbf{x}_i` is the topological atomic descriptor, the number of neighbours of atom i in each shell.
    As in the published implementation, the activation is CELU with :math:`\alpha = 0.1`, weights are initialised from
    a Kaiming normal distribution of gain 1, and biases are initialised to zero.

    Args:
        radii (sequence of float): Shell radii in Å.
        hidden_channels (int): Width of the shell networks.
        interaction_channels (sequence of int): Widths of the hidden layers of the interaction network.
        active_shells (sequence of int, optional): Shells that are summed over; by default all. The descriptor always
            contains the counts of all shells (the ablations of Table 2).

    Example:
        >>> import torch
        >>> model = DART()
        >>> z, batch = torch.tensor([31, 31]), torch.tensor([0, 0])
        >>> pos = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.7]])
        >>> model(z, pos, batch).shape
        torch.Size([1])
    """

    def __init__(
        self,
        radii: Sequence[float] = GALLIUM_RADII,
        hidden_channels: int = 128,
        interaction_channels: Sequence[int] = (256, 128, 32),
        active_shells: Sequence[int] | None = None,
    ):
        super().__init__()
        self.radii = check_radii(radii)
        self.hidden_channels = hidden_channels
        self.interaction_channels = tuple(interaction_channels)
        num_shells = len(self.radii) + 1
        self.conv = ShellConv(num_shells, hidden_channels, num_shells, active_shells=active_shells)
        self.active_shells = self.conv.active_shells
        widths = [hidden_channels, *self.interaction_channels, 1]
        self.interaction = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.act = nn.CELU(alpha=0.1)
        self.scale = EnergyScale()
        self.domain = TrainingDomain()
        self.reset_parameters()

    def reset_parameters(self):
        reset_parameters(self)

    def forward(
        self,
        z: Tensor | None,
        pos: Tensor | None,
        batch: Tensor | None = None,
        *,
        x: Tensor | None = None,
        edge_index: Tensor | None = None,
        edge_type: Tensor | None = None,
    ) -> Tensor:
        """Energies of the clusters, ``[num_graphs]`` in eV.

        Args:
            z: Atomic numbers ``[num_atoms]``; may be ``None`` for a model of one element.
            pos: Positions ``[num_atoms, 3]`` in Å; may be ``None`` if a shell graph is given.
            batch: Cluster index of each atom ``[num_atoms]``, sorted; one cluster if not given.
            x: Shell counts ``[num_atoms, num_shells]``, if already computed; used only with a shell graph.
            edge_index: Shell graph ``[2, num_edges]`` (source j, target i). Without it the dense products of
                :meth:`ShellConv.forward_dense` are used, which is faster.
            edge_type: Shell of each edge ``[num_edges]``.
        """
        energy = self.atomic_energies(z, pos, batch, x=x, edge_index=edge_index, edge_type=edge_type)
        return sum_over_clusters(energy, one_cluster(energy) if batch is None else batch)

    def atomic_energies(
        self, z: Tensor | None, pos: Tensor | None, batch: Tensor | None = None, **graph: Tensor | None
    ) -> Tensor:
        """Contributions of the atoms ``[num_atoms]`` in eV; the arguments are those of :meth:`forward`."""
        return self.energies_and_features(z, pos, batch, **graph).energy

    def features(
        self, z: Tensor | None, pos: Tensor | None, batch: Tensor | None = None, **graph: Tensor | None
    ) -> Tensor:
        """Output of the last hidden layer, ``[num_atoms, 32]``; the arguments are those of :meth:`forward`."""
        return self.energies_and_features(z, pos, batch, **graph).features

    def energies_and_features(
        self,
        z: Tensor | None,
        pos: Tensor | None,
        batch: Tensor | None = None,
        *,
        x: Tensor | None = None,
        edge_index: Tensor | None = None,
        edge_type: Tensor | None = None,
    ) -> AtomicEnergies:
        """Energies and features of the atoms; the arguments are those of :meth:`forward`."""
        self._check_elements(z)
        batch = one_cluster(pos, x, z) if batch is None else batch
        pos, defect = (None, None) if pos is None else usable_positions(pos, batch)
        if edge_index is not None:
            y = self._sums_of_edges(z, batch, x, edge_index, edge_type)
        elif pos is None:
            raise ValueError(f"{type(self).__name__} needs positions, or a shell graph (edge_index and edge_type)")
        elif batch.numel() == 0:
            y = pos.new_zeros(0, self.hidden_channels)
        else:
            y = self._sums_of_positions(z, pos, batch)
        return self._read_out(y, z, defect)

    def _check_elements(self, z: Tensor | None):
        self.domain.check(z)

    def _read_out(self, y: Tensor, z: Tensor | None, defect: Tensor | None = None) -> AtomicEnergies:
        for layer in self.interaction[:-1]:
            y = self.act(layer(y))
        raw = self.interaction[-1](y)  # [num_atoms, 1]
        energy = self.scale(raw.squeeze(-1), z)
        return AtomicEnergies(energy if defect is None else energy + defect.to(energy.dtype), y)

    def _sums_of_edges(
        self, z: Tensor | None, batch: Tensor, x: Tensor | None, edge_index: Tensor, edge_type: Tensor | None
    ) -> Tensor:
        """Equations 1 to 5 on a shell graph, ``[num_atoms, hidden_channels]``."""
        num_shells = len(self.radii) + 1
        check_shells(edge_type, num_shells)
        if x is None or num_shells - 1 in self.active_shells:
            check_complete(edge_index, batch)
        if x is None:
            edge_type = torch.zeros_like(edge_index[0]) if edge_type is None else edge_type
            x = edge_shell_counts(edge_index, edge_type, batch.numel(), num_shells)
        return self.conv(x.to(next(self.interaction.parameters()).dtype), edge_index, edge_type)

    def _sums_of_positions(self, z: Tensor | None, pos: Tensor, batch: Tensor) -> Tensor:
        """Equations 1 to 5, ``[num_atoms, hidden_channels]``.

        Small clusters are padded and use dense products; large clusters use sums over near pairs.
        """
        dtype = next(self.interaction.parameters()).dtype
        if is_large(batch.numel()) and is_large(ptr := batch_to_ptr(batch)):
            near = near_shells(pos.detach(), ptr, self.radii)
            rows, row_of_atom = distinct_counts(near.counts)
            return combine_near(self.conv.near_terms(rows.to(dtype)), row_of_atom, batch, *near[:2])
        padded, place, sizes = pad_clusters(pos.detach(), batch)
        masks = beyond_masks(padded, self.radii, dtype)
        counts = masks_to_counts(masks, sizes.to(dtype) - 1).flatten(0, 1)[place]

        if is_traced():  # shapes must not depend on values
            terms = self.conv.atom_terms(counts)
        else:
            rows, row_of_atom = distinct_counts(counts)
            terms = self.conv.atom_terms(rows).index_select(0, row_of_atom)
        padded_terms = pad_values(terms, place, padded.shape[:2])
        return self.conv.combine_dense(padded_terms, masks).flatten(0, 1).index_select(0, place)

    def fast_path(self, device: torch.device, half: bool) -> Callable[[Tensor, Tensor], Tensor] | None:
        """Energies of clusters of one size, see :class:`~pyg_clusters.models.contract.HasFastPath`."""
        if len(self.interaction) < 2:
            return None
        return FusedDART(self) if device.type == "cpu" and not half else TabulatedDART(self, half)

    @classmethod
    def from_published_checkpoint(cls, path: str | Path) -> "DART":
        """Load a checkpoint of the published implementation.

        Its energies in kcal/mol are converted to eV. Only tensors, numbers and plain containers are unpickled.

        Raises:
            ValueError: If the file is not such a checkpoint.
        """
        try:
            with torch.serialization.safe_globals(NUMPY_NUMBERS):
                content = torch.load(path, map_location="cpu", weights_only=True)
            published = {name.removeprefix("module."): tensor for name, tensor in content["state_dict"].items()}
            model = cls()
            model.scale.is_fitted = True  # the initial scale takes raw outputs in kcal/mol
            linears = {f"inter{number}": layer for number, layer in enumerate(model.interaction, start=1)}
            for letter, perceptron in zip("ijkl", [model.conv.root, *model.conv.shells.values()], strict=True):
                lins = cast(MLP, perceptron).lins
                linears |= {f"f{letter}{number}": layer for number, layer in enumerate(lins, start=1)}
            for name, linear in linears.items():
                linear.load_state_dict({part: published[f"{name}.{part}"] for part in ("weight", "bias")})
        except FileNotFoundError:
            raise
        except Exception as error:
            message = f"{path}: not a checkpoint of the published DART ({type(error).__name__}: {error})"
            raise ValueError(message.splitlines()[0]) from error
        return model
