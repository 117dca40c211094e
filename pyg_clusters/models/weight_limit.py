"""Limit of the weights of a model, held while it is made."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pyg_clusters.errors import InputError

MAX_WEIGHTS: int = 200_000_000
"""Numbers that the tensors made within :func:`bounded_weights` may hold together: 800 MB in single precision."""

SMALLEST: int = 1_000
"""Bytes that the smallest tensor counts: the objects around it take memory, too."""

FACTORIES = frozenset(
    {torch.ops.aten.empty.memory_format, torch.ops.aten.zeros.default, torch.ops.aten.ones.default}
    | {torch.ops.aten.full.default, torch.ops.aten.rand.default, torch.ops.aten.randn.default}
)
"""Operators whose first argument is the shape of a new tensor."""


class _WeightLimit(TorchDispatchMode):
    """Counts the numbers of tensors before they are made."""

    def __init__(self):
        super().__init__()
        self.counted = 0

    def __torch_dispatch__(
        self, func: Callable, types: Sequence[type], args: tuple = (), kwargs: Mapping[str, object] | None = None
    ):
        if func in FACTORIES:
            self.counted += max(math.prod(args[0]), SMALLEST)
            if self.counted > MAX_WEIGHTS:
                raise InputError(
                    f"it would hold more than {MAX_WEIGHTS:,} numbers (a tensor of {list(args[0])} among them); give "
                    "it fewer or narrower layers"
                )
        return func(*args, **(kwargs or {}))


@contextmanager
def bounded_weights() -> Iterator[None]:
    """Within the block, tensors of more than :data:`MAX_WEIGHTS` numbers together are refused before they are made.

    Otherwise a width of 10^9 in a recipe or a file would have the system kill the process for its memory.

    Raises:
        InputError: If they would be.

    Example:
        >>> with bounded_weights():
        ...     torch.nn.Linear(10**9, 64)
        Traceback (most recent call last):
        pyg_clusters.errors.InputError: it would hold more than 200,000,000 numbers (a tensor of [64, 1000000000] ...
    """
    with _WeightLimit():
        yield
