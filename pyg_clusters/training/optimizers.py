"""Optimisers and schedules of the papers."""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

OptimizerCallable = Callable[..., Optimizer]
SchedulerCallable = Callable[[Optimizer], LRScheduler]


def adam(parameters) -> Optimizer:
    """Optimiser of Modee et al. 2021, section 2.4: Adam with a learning rate of 1e-3."""
    return torch.optim.Adam(parameters, lr=1e-3)


def fast_adam(parameters) -> Optimizer:
    """Optimiser of Kaneko et al. 2023: Adam with a learning rate of 0.01."""
    return torch.optim.Adam(parameters, lr=0.01)


def plateau(optimizer: Optimizer) -> LRScheduler:
    """Schedule of Modee et al. 2021: divide the rate by ten after 25 epochs without a better validation error."""
    return ReduceLROnPlateau(optimizer, factor=0.1, patience=25, eps=1e-9)


class AdamWWithSGD(Optimizer):
    """AdamW for the weights (matrices) and stochastic gradient descent for the biases (vectors) of a model, the
    optimiser of the BPSF-HDNN of `Modee et al. 2021 <https://doi.org/10.1039/d1cp02956h>`_ (section 2.4).

    Schedules and checkpoints treat it as one optimiser with the parameter groups and states of both. A schedule changes
    both learning rates by the same factor.

    Args:
        params: Parameters of a model.
        lr: Learning rate of AdamW.
        bias_lr: Learning rate of SGD.
        weight_decay: Weight decay of AdamW. Biases are not decayed.

    Example:
        >>> layer = torch.nn.Linear(3, 2)
        >>> [group["lr"] for group in AdamWWithSGD(layer.parameters(), lr=1e-3, bias_lr=1e-2).param_groups]
        [0.001, 0.01]
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float = 1e-3, bias_lr: float = 1e-3, weight_decay: float = 0.01
    ):
        params = list(params)
        weights = [parameter for parameter in params if parameter.dim() > 1]
        biases = [parameter for parameter in params if parameter.dim() <= 1]
        if not weights or not biases:
            raise ValueError(f"the model must have weights and biases, got {len(weights)} and {len(biases)} of them")
        self.for_weights = AdamW(weights, lr=lr, weight_decay=weight_decay)
        self.for_biases = SGD(biases, lr=bias_lr)
        super().__init__([*self.for_weights.param_groups, *self.for_biases.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Step both optimisers."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # Loading a state dict replaces the groups and the state that both optimisers share with this one.
        self.for_weights.param_groups, self.for_biases.param_groups = self.param_groups[:1], self.param_groups[1:]
        self.for_weights.state = self.for_biases.state = self.state
        self.for_weights.step()
        self.for_biases.step()
        return loss
