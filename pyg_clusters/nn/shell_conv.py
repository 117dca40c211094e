"""Shell-wise convolution of DART."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag
from torch_geometric.nn import MLP, MessagePassing
from torch_geometric.typing import OptPairTensor

from pyg_clusters.geometry import check_shells


class ShellConv(MessagePassing):
    r"""Shell-wise convolution of `"DART" <https://doi.org/10.1039/d1cp02956h>`_ (Modee et al. 2021, Eqs. 1-5).

    .. math::
        \mathbf{x}^{\prime}_i = \varphi(\mathbf{x}_i) + \sum_{s=0}^{S-1} \sum_{j \in \mathcal{N}_s(i)}
        \varphi_s(\mathbf{x}_j)

    where :math:`\mathcal{N}_s(i)` are the neighbours of atom i in distance shell s (J, K, L for S = 3) and every
    :math:`\varphi` is a perceptron with an activation after each of its two layers. As a term depends only on the
    source atom and the shell, each :math:`\varphi_s` is evaluated on atoms, not on edges.

    The convolution can be computed from a graph (:meth:`forward`) or from dense shell masks (:meth:`forward_dense`).
    The latter is much faster for clusters, in which all atoms are neighbours of each other.

    Args:
        in_channels (int): Size of each input sample.
        out_channels (int): Size of each output sample.
        num_shells (int): Number of shells, one more than the number of shell radii.
        hidden_channels (int, optional): Size of the hidden layer; by default ``out_channels``.
        active_shells (sequence of int, optional): Shells that are summed over; by default all. Other shells have no
            perceptron (the ablations of Modee et al. 2021, Table 2).
        root_weight (bool): Whether to include the term of the atom itself, :math:`\varphi(\mathbf{x}_i)`.
        act (str): Activation function.
        act_kwargs (dict, optional): Arguments of the activation function.
        **kwargs: Arguments of :class:`torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        - **input:** features ``[num_atoms, in_channels]``, or a pair of them for a bipartite graph; ``edge_index
          [2, num_edges]`` (source j, target i); ``edge_type [num_edges]``, the shell of j around i
        - **output:** ``[num_atoms, out_channels]``; for a bipartite graph, features of the target atoms

    Raises:
        ValueError: If an active shell is not one of the ``num_shells``.

    Example:
        >>> import torch
        >>> conv = ShellConv(3, 128)
        >>> counts = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
        >>> edge_index = torch.tensor([[0, 1], [1, 0]])
        >>> conv(counts, edge_index, edge_type=torch.tensor([0, 0])).shape
        torch.Size([2, 128])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_shells: int = 3,
        hidden_channels: int | None = None,
        active_shells: Sequence[int] | None = None,
        root_weight: bool = True,
        act: str = "celu",
        act_kwargs: dict | None = None,
        **kwargs,
    ):
        kwargs.setdefault("aggr", "sum")
        super().__init__(**kwargs)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_shells = num_shells
        self.hidden_channels = out_channels if hidden_channels is None else hidden_channels
        self.active_shells = tuple(range(num_shells)) if active_shells is None else tuple(sorted(set(active_shells)))
        self.root_weight = root_weight
        if any(shell not in range(num_shells) for shell in self.active_shells):
            raise ValueError(f"active_shells must be among 0 to {num_shells - 1}, got {list(self.active_shells)}")
        self.act = act
        self.act_kwargs = {"alpha": 0.1} if act == "celu" and act_kwargs is None else act_kwargs

        self.root = self._perceptron() if root_weight else None
        self.shells = nn.ModuleDict({str(shell): self._perceptron() for shell in self.active_shells})
        self.reset_parameters()

    def _perceptron(self) -> MLP:
        channels = [self.in_channels, self.hidden_channels, self.out_channels]
        return MLP(channels, act=self.act, act_kwargs=self.act_kwargs, norm=None, plain_last=False)

    def reset_parameters(self):
        super().reset_parameters()
        for perceptron in self.children():
            for module in perceptron.modules():
                if isinstance(module, MLP):
                    module.reset_parameters()

    def forward(self, x: Tensor | OptPairTensor, edge_index: Tensor, edge_type: Tensor | None = None) -> Tensor:
        x_source, x_target = (x, x) if isinstance(x, Tensor) else x
        check_shells(edge_type, self.num_shells)
        if edge_type is None:
            edge_type = edge_index.new_zeros(edge_index.size(1))
        size = (x_source.size(0), x_source.size(0) if x_target is None else x_target.size(0))

        out = x_source.new_zeros(size[1], self.out_channels)
        if self.root is not None and x_target is not None:
            out = out + self.root(x_target)
        for shell, perceptron in self.shells.items():
            edges_of_shell = edge_index[:, edge_type == int(shell)]
            # propagate_type: (x: Tensor)
            out = out + self.propagate(edges_of_shell, x=perceptron(x_source), size=size)
        return out  # [num_atoms, out_channels]

    def message(self, x_j: Tensor) -> Tensor:
        return x_j

    def forward_dense(self, x: Tensor, masks: Tensor, valid: Tensor | None = None) -> Tensor:
        """Compute the convolution from the shell masks of clusters padded to one size.

        Args:
            x: Features ``[num_graphs, num_atoms, in_channels]``.
            masks: Cumulative shell masks of :func:`pyg_clusters.geometry.beyond_masks`,
                ``[num_graphs, num_atoms, num_shells - 1, num_atoms]``.
            valid: Mask of the atoms that are not padding, ``[num_graphs, num_atoms]``; all atoms if not given.

        Returns:
            Features ``[num_graphs, num_atoms, out_channels]``, undefined for padded atoms.
        """
        root, h = self._values(x)
        inner = h[0] if valid is None else h[0] * valid[..., None]  # the masks exclude padded atoms from other shells
        own = root - h[0] + inner.sum(dim=1, keepdim=True)
        if len(h) == 1:
            return own
        steps = torch.stack([outer - inner for inner, outer in pairwise(h)], dim=1)
        return torch.baddbmm(own, masks.flatten(2), steps.flatten(1, 2))

    def atom_terms(self, x: Tensor) -> Tensor:
        r"""Terms of each atom that :meth:`combine_dense` sums, ``[..., num_shells + 1, out_channels]``.

        With :math:`h_s = \varphi_s(\mathbf{x})` (zero for an inactive shell) the terms are :math:`\varphi - h_0`,
        :math:`h_0`, :math:`h_1 - h_0`, ..., :math:`h_{S-1} - h_{S-2}`.
        """
        root, h = self._values(x)
        return torch.stack([root - h[0], h[0], *(outer - inner for inner, outer in pairwise(h))], dim=-2)

    def _values(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        r""":math:`\varphi(\mathbf{x})` and :math:`\varphi_s(\mathbf{x})` of each shell, zero for inactive shells."""
        zero = x.new_zeros(*x.shape[:-1], self.out_channels)
        root = zero if self.root is None else self.root(x)
        shells = (str(shell) for shell in range(self.num_shells))
        return root, [self.shells[shell](x) if shell in self.shells else zero for shell in shells]

    @staticmethod
    def combine_dense(terms: Tensor, masks: Tensor) -> Tensor:
        r"""Sum :meth:`atom_terms` over the neighbours.

        Let :math:`C_s` be the mask of shell s and all shells outside it. The mask of shell s alone is :math:`C_s -
        C_{s+1}`, hence

        .. math::
            \varphi + \sum_s (C_s - C_{s+1}) h_s = (\varphi - h_0) + \sum_j h_{0,j} + \sum_{s \ge 1} C_s (h_s - h_{s-1})

        This is a sum over the cluster for the innermost shell and a single product for all other shells.

        Args:
            terms: ``[num_graphs, num_atoms, num_shells + 1, channels]``, zero at padded atoms.
            masks: ``[num_graphs, num_atoms, num_shells - 1, num_atoms]``.

        Returns:
            ``[num_graphs, num_atoms, channels]``.
        """
        num_terms = terms.size(2)
        own = terms[:, :, 0] + terms[:, :, 1].sum(dim=1, keepdim=True)
        if num_terms == 2:
            return own
        steps = terms[:, :, 2:].transpose(1, 2).flatten(1, 2)
        return torch.baddbmm(own, masks.flatten(2), steps)

    def near_terms(self, x: Tensor) -> Tensor:
        r"""Terms of each atom that :func:`combine_near` sums, ``[..., num_shells + 1, out_channels]``.

        The terms are :math:`\varphi - h_{S-1}`, :math:`h_{S-1}`, :math:`h_0 - h_{S-1}`, ...,
        :math:`h_{S-2} - h_{S-1}` of the :math:`h_s` of :meth:`atom_terms`.
        """
        root, (*inner, outermost) = self._values(x)
        return torch.stack([root - outermost, outermost, *(h - outermost for h in inner)], dim=-2)

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.in_channels}, {self.out_channels}, num_shells={self.num_shells}, "
            f"active_shells={list(self.active_shells)})"
        )


def combine_near(terms: Tensor, row_of_atom: Tensor, batch: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
    r"""Sum :meth:`ShellConv.near_terms` over the neighbours, using only pairs of near atoms.

    The sum over the outermost shell is the sum over all atoms minus the sum over the nearer ones,

    .. math::
        \varphi + \sum_s \sum_{j \in \mathcal{N}_s} h_{s,j} = (\varphi - h_{S-1}) + \sum_j h_{S-1,j} +
        \sum_{s < S-1} \sum_{j \in \mathcal{N}_s} (h_s - h_{S-1})_j

    The total is summed in double precision.

    Args:
        terms: Terms of the distinct descriptor rows ``[num_rows, num_shells + 1, channels]``.
        row_of_atom: Row of each atom, ``[num_atoms]``.
        batch: Cluster index of each atom ``[num_atoms]``.
        edge_index: Pairs in all shells but the outermost ``[2, num_edges]`` (source j, target i), ordered by target.
        edge_type: Shells of the pairs ``[num_edges]``.

    Returns:
        ``[num_atoms, channels]``.
    """
    num_graphs = int(batch[-1]) + 1
    rows_of_graph = torch.bincount(batch * len(terms) + row_of_atom, minlength=num_graphs * len(terms))
    totals = rows_of_graph.view(num_graphs, -1).double() @ terms[:, 1].double()
    own = totals.to(terms.dtype).index_select(0, batch) + terms[:, 0].index_select(0, row_of_atom)
    num_inner = terms.size(1) - 2
    if not num_inner:
        return own
    degree = torch.bincount(edge_index[1], minlength=batch.numel())
    entries = row_of_atom.index_select(0, edge_index[0]) * num_inner + edge_type
    return own + embedding_bag(entries, terms[:, 2:].flatten(0, 1), degree.cumsum(0) - degree, mode="sum")
