"""TorchScript model of isolated clusters with the interface of metatomic.

This is a separate script that imports nothing from this package, because metatomic cannot be imported after
torch_geometric.
"""

import json
import math
import sys
import warnings
from pathlib import Path
from typing import Any, Dict, List, Optional  # noqa: UP035  # TorchScript reads these

import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import AtomisticModel, ModelCapabilities, ModelMetadata, ModelOutput, System
from torch import Tensor, nn

ENERGIES, SETTINGS, MODEL = "energies.pt", "settings.json", "model.pt"
"""Names of the files: the traced energies, the settings of the model, and the exported model."""


class ExportedModel(nn.Module):
    """Model of the energies of isolated clusters; the simulation program computes forces by differentiation.

    Clusters in a periodic cell are joined across its faces; clusters that are not separated from their periodic images
    raise an error. The first cluster outside the sizes, compositions and geometries of the training set raises a
    warning.

    Args:
        energies: Traced function of ``z [num_atoms]`` and ``pos [num_atoms, 3]`` in Å of one cluster, which returns
            atomic energies in eV by each member of an ensemble, ``[num_atoms, num_members]``.
        sizes: Smallest and largest number of atoms of clusters in the training set.
        limits: Shortest distance and largest nearest-neighbour distance, in sums of covalent radii, and largest
            coordination number; see :class:`~pyg_clusters.models.training_domain.GeometryRange`.
        scale: Factor of the shortest distance of each pair of elements, a list per element; empty if it is 1.
        elements: Atomic numbers of the elements in the training set.
        symbols: Symbols of these elements.
        fractions: Smallest and largest fraction of the atoms of a cluster, of each element; empty if unknown.
        one_atom: Atoms of an element by which a cluster may be beyond these fractions.
        neighbors: Distance within which atoms are neighbours, in sums of covalent radii.
        radii: Covalent radii in Å by atomic number.
        vacuum: Minimum distance between a cluster and its periodic images in Å.
        reach: Minimum distance in covalent radii of the largest atom; the larger of the two applies.
    """

    radii: Tensor
    scale: Tensor
    fractions: Tensor
    column: Tensor

    def __init__(
        self,
        energies: nn.Module,
        sizes: tuple[int, int],
        limits: tuple[float, float, float],
        scale: list[list[float]],
        elements: list[int],
        symbols: list[str],
        fractions: list[list[float]],
        one_atom: float,
        neighbors: float,
        radii: list[float],
        vacuum: float,
        reach: float,
    ):
        super().__init__()
        self.energies = energies
        self.smallest, self.largest = sizes
        self.shortest, self.most, self.farthest = limits
        self.neighbors, self.vacuum, self.reach = neighbors, vacuum, reach
        self.symbols, self.one_atom = symbols, one_atom
        self.register_buffer("radii", torch.tensor(radii, dtype=torch.double))
        number, column = len(elements), torch.zeros(len(radii), dtype=torch.long)
        column[elements] = torch.arange(number)
        self.register_buffer("column", column)  # index of each atomic number among the elements
        self.register_buffer("scale", torch.tensor(scale or [[1.0] * number] * number, dtype=torch.double))
        self.register_buffer("fractions", torch.tensor(fractions or [[0.0, 1.0]] * number, dtype=torch.double))
        self.warned = False

    def forward(
        self,
        systems: List[System],  # noqa: UP006
        outputs: Dict[str, ModelOutput],  # noqa: UP006
        selected_atoms: Optional[Labels] = None,  # noqa: UP045
    ) -> Dict[str, TensorMap]:  # noqa: UP006
        """Compute energies and their standard deviations in eV, per system or per atom, for all or selected atoms."""
        found: Dict[str, TensorMap] = {}  # noqa: UP006
        if len(outputs) == 0:
            return found
        shares: List[Tensor] = []  # noqa: UP006
        atoms: List[Tensor] = []  # noqa: UP006
        for number, system in enumerate(systems):
            z = system.types.to(torch.long)
            pos = self.joined(z, system.positions, system.cell, system.pbc)
            self.warn_outside(z, pos.detach())
            energy = self.energies(z, pos - pos.detach().mean(dim=0, keepdim=True))
            atom = torch.arange(z.size(0), device=z.device)
            if selected_atoms is not None:
                chosen = selected_atoms.values.to(torch.long)
                atom = chosen[chosen[:, 0] == number][:, 1]
                energy = energy[atom]
            shares.append(energy)
            atoms.append(torch.stack([torch.full_like(atom, number), atom], dim=1))
        for name, output in outputs.items():
            found[name] = self.values(name, output.sample_kind == "atom", shares, atoms)
        return found

    def values(
        self,
        name: str,
        per_atom: bool,
        shares: List[Tensor],  # noqa: UP006
        atoms: List[Tensor],  # noqa: UP006
    ) -> TensorMap:
        """Mean or standard deviation over the members, as a metatensor map."""
        names = ["system", "atom"] if per_atom else ["system"]
        device = shares[0].device if len(shares) > 0 else self.radii.device
        samples = [torch.zeros(0, len(names), dtype=torch.long, device=device)]
        values = [torch.zeros(0, 1, dtype=shares[0].dtype if len(shares) > 0 else torch.float32, device=device)]
        for number in range(len(shares)):
            energy = shares[number]
            if per_atom:
                samples.append(atoms[number])
            else:
                samples.append(torch.full((1, 1), number, dtype=torch.long, device=device))
                energy = energy.sum(dim=0, keepdim=True)
            spread = name == "energy_uncertainty"
            values.append(torch.std(energy, [1], True, True) if spread else energy.mean(dim=1, keepdim=True))
        block = TensorBlock(
            torch.cat(values),
            Labels(names, torch.cat(samples).to(torch.int32)),
            torch.jit.annotate(List[Labels], []),  # noqa: UP006
            Labels(["energy"], torch.zeros(1, 1, dtype=torch.int32, device=device)),
        )
        return TensorMap(Labels(["_"], torch.zeros(1, 1, dtype=torch.int32, device=device)), [block])

    def joined(self, z: Tensor, pos: Tensor, cell: Tensor, pbc: Tensor) -> Tensor:
        """Join a cluster across cell faces, by cutting the cell in the vacuum; returns positions ``[num_atoms, 3]``."""
        if z.size(0) == 0 or not bool(pbc.any()):
            return pos
        lattice = torch.where(pbc[:, None], cell, torch.zeros_like(cell)).to(torch.double)
        dual = torch.linalg.pinv(lattice)  # [3, 3], a column for each vector
        needed = max(self.vacuum, self.reach * float(self.radii[z].max()))
        fraction = pos.detach().to(torch.double) @ dual
        steps = torch.zeros_like(fraction)
        for axis in range(3):
            if bool(pbc[axis]):
                inside = fraction[:, axis] - torch.floor(fraction[:, axis])
                order = torch.sort(inside)[0]
                gaps = torch.cat([order[1:], order[:1] + 1.0]) - order
                wide = gaps >= needed * float(torch.linalg.vector_norm(dual[:, axis]))
                if int(wide.sum()) != 1:
                    number = "several regions" if bool(wide.any()) else "no region"
                    raise ValueError(
                        f"this model is for isolated clusters: along cell vector {axis} the atoms have {number} of "
                        f"vacuum of {needed} Å; use a larger cell or no periodic boundaries, and one cluster alone"
                    )
                start = order[(int(gaps.argmax()) + 1) % order.size(0)]
                begun = inside - start
                steps[:, axis] = torch.round(begun - torch.floor(begun) + start - fraction[:, axis])
        return pos + (steps @ lattice).to(pos.dtype)

    def warn_outside(self, z: Tensor, pos: Tensor):
        """Warn once about a cluster outside the range of the training set."""
        size = z.size(0)
        if self.warned or size == 0:
            return
        column = self.column[z]
        count = torch.bincount(column, minlength=len(self.symbols)).to(torch.double)
        beyond = torch.maximum(count - self.fractions[:, 1] * size, self.fractions[:, 0] * size - count)
        reason = ""
        if size < self.smallest or size > self.largest:
            reason = f"the cluster has {size} atoms, those of the training set had {self.smallest} to {self.largest}"
        elif float(beyond.max()) > self.one_atom:
            worst = int(beyond.argmax())
            low, high = [int(torch.round(100 * limit)) for limit in self.fractions[worst]]
            percent = int(torch.round(100 * count[worst] / size))
            reason = f"{percent} % of the atoms are {self.symbols[worst]}, {low} to {high} % in the training set"
        elif size > 1:
            sums = self.radii[z][:, None] + self.radii[z]
            ratio = torch.linalg.vector_norm(pos[:, None] - pos, dim=2) / sums
            ratio = ratio + torch.diag(torch.full((size,), float("inf"), dtype=ratio.dtype, device=ratio.device))
            if float((ratio * self.scale[column][:, column]).min()) < self.shortest:
                reason = "two atoms are closer than any in the training set"
            elif float((ratio < self.neighbors).sum(dim=1).max()) > self.most:
                reason = "an atom has more neighbours than any in the training set"
            elif float(ratio.amin(dim=1).max()) > self.farthest:
                reason = "an atom is further from the others than any in the training set"
        if len(reason) > 0:
            self.warned = True
            warnings.warn(f"{reason}: do not trust this energy or any later one", stacklevel=2)


def write(folder: Path):
    """Write the metatomic model from the traced energies and settings in a folder."""
    settings: dict[str, Any] = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    module = ExportedModel(torch.jit.load(str(folder / ENERGIES)), **settings["module"])
    outputs = {"energy": ModelOutput(unit="eV", sample_kind="atom", description="energy of the cluster")}
    if settings["members"] > 1:
        text = "standard deviation over the members of the ensemble"
        outputs["energy_uncertainty"] = ModelOutput(unit="eV", sample_kind="atom", description=text)
    capabilities = ModelCapabilities(
        outputs=outputs, interaction_range=math.inf, length_unit="angstrom", **settings["capabilities"]
    )
    AtomisticModel(module.eval(), ModelMetadata(**settings["metadata"]), capabilities).save(folder / MODEL)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
