"""The range of clusters that a model was trained on."""

from collections.abc import Iterable

import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from pyg_clusters.errors import InputError
from pyg_clusters.nn.energy_scale import MAX_ATOMIC_NUMBER


class Domain(nn.Module):
    """Elements and cluster sizes seen in training, as buffers of a model.

    Before :meth:`fit` nothing is known, and nothing counts as outside.
    """

    elements: Tensor
    sizes: Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("elements", torch.zeros(MAX_ATOMIC_NUMBER + 1, dtype=torch.bool))
        self.register_buffer("sizes", torch.zeros(2, dtype=torch.long))

    def reset_parameters(self):
        """Forgets everything."""
        self.elements.zero_()
        self.sizes.zero_()

    def fit(self, z: Tensor, ptr: Tensor):
        """Records the elements and the smallest and largest cluster of a training set."""
        self.reset_parameters()
        self.add(z, ptr)

    def add(self, z: Tensor, ptr: Tensor):
        """Adds further clusters of a training set, whatever their elements."""
        sizes = torch.cat([ptr.diff(), self.sizes.to(ptr.device)]) if self.known else ptr.diff()
        self.elements[z] = True
        self.sizes.copy_(torch.stack([sizes.min(), sizes.max()]))

    def widen(self, z: Tensor, ptr: Tensor):
        """Adds a further training set of the same elements.

        Raises:
            InputError: If it holds other elements.
        """
        unknown = sorted(set(z.unique().tolist()) - set(self.atomic_numbers)) if self.known else []
        if unknown:
            raise InputError(f"the model does not know the elements {unknown} (atomic numbers) of the training set")
        self.add(z, ptr)

    @property
    def known(self) -> bool:
        """Whether the domain was recorded."""
        return bool(self.elements.any())

    @property
    def atomic_numbers(self) -> list[int]:
        """Atomic numbers of the elements seen in training."""
        return self.elements.nonzero().flatten().tolist()

    @property
    def symbols(self) -> str:
        """Symbols of the elements seen in training, with commas between them."""
        return _symbols(self.atomic_numbers)

    def problem(self, numbers: Iterable[int]) -> str | None:
        """Why a model cannot do clusters of some elements (atomic numbers), if so."""
        unknown = sorted(set(numbers) - set(self.atomic_numbers))
        if not unknown:
            return None
        return f"the model was trained on {self.symbols} and knows nothing of {_symbols(unknown)}"

    @property
    def size_range(self) -> tuple[int, int]:
        """Number of atoms of the smallest and of the largest cluster seen in training."""
        return int(self.sizes[0]), int(self.sizes[1])

    def __repr__(self) -> str:
        if not self.known:
            return f"{self.__class__.__name__}()"
        return f"{self.__class__.__name__}(atomic_numbers={self.atomic_numbers}, sizes={self.size_range})"


def domain_of(model: nn.Module) -> Domain | None:
    """What a model knows of the elements and sizes that it was trained on, if anything."""
    domain = getattr(model, "domain", None)
    return domain if isinstance(domain, Domain) and domain.known else None


def _symbols(atomic_numbers: Iterable[int]) -> str:
    return ", ".join(chemical_symbols[number] for number in atomic_numbers)
