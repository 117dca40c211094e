"""An optimiser for the weights and another for the biases."""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer


class AdamWWithSGD(Optimizer):
    """AdamW for the weights (matrices) and stochastic gradient descent for the biases (vectors) of a model, as the
    BPSF-HDNN of `Modee et al. 2021 <https://doi.org/10.1039/d1cp02956h>`_ (section 2.4) is trained.

    It is one optimiser for schedules and checkpoints: groups of parameters and states of both are in it, and a schedule
    changes both rates by the same factor.

    Args:
        params (iterable): Parameters of a model.
        lr (float): Rate of AdamW.
        bias_lr (float): Rate of SGD.
        weight_decay (float): Weight decay of AdamW. Biases are not decayed.
        betas (tuple of float): Decay of AdamW's averages.

    Example:
        >>> layer = torch.nn.Linear(3, 2)
        >>> [group["lr"] for group in AdamWWithSGD(layer.parameters(), lr=1e-3, bias_lr=1e-2).param_groups]
        [0.001, 0.01]
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        bias_lr: float = 1e-3,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
    ):
        params = list(params)
        weights = [parameter for parameter in params if parameter.dim() > 1]
        biases = [parameter for parameter in params if parameter.dim() <= 1]
        if not weights or not biases:
            raise ValueError(f"a model with weights and biases is needed, got {len(weights)} and {len(biases)} of them")
        self.for_weights = AdamW(weights, lr=lr, betas=betas, weight_decay=weight_decay)
        self.for_biases = SGD(biases, lr=bias_lr)
        super().__init__([*self.for_weights.param_groups, *self.for_biases.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """A step of each."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # Loading a state puts new groups and a new state in place of those that both shared with this one.
        self.for_weights.param_groups, self.for_biases.param_groups = self.param_groups[:1], self.param_groups[1:]
        self.for_weights.state = self.for_biases.state = self.state
        self.for_weights.step()
        self.for_biases.step()
        return loss
