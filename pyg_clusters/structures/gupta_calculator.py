"""The Gupta potential for ASE."""

import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from pyg_clusters.errors import InputError
from pyg_clusters.structures.forces import energy_and_forces
from pyg_clusters.structures.gupta import Gupta


class GuptaCalculator(Calculator):
    """ASE calculator of the energy (eV) and forces (eV/Å) of an isolated cluster by the Gupta potential.

    Args:
        element: Symbol of the element, one of :data:`~pyg_clusters.structures.GUPTA_PARAMETERS`.

    Example:
        >>> from ase.cluster import Icosahedron
        >>> cluster = Icosahedron("Na", 2, latticeconstant=5.2)
        >>> cluster.calc = GuptaCalculator("Na")
        >>> print(f"{cluster.get_potential_energy():.2f} eV")
        -8.82 eV
    """

    implemented_properties = ["energy", "free_energy", "forces"]

    def __init__(self, element: str):
        super().__init__()
        self.potential = Gupta(element)

    def calculate(self, atoms: Atoms | None = None, properties=("energy",), system_changes=tuple(all_changes)):
        """Fills in the results; called by ASE."""
        super().calculate(atoms, properties, system_changes)
        cluster = self.atoms
        assert cluster is not None
        if cluster.pbc.any():
            raise InputError("this potential is for isolated clusters: set atoms.pbc = False")
        z, pos = torch.from_numpy(cluster.numbers).long(), torch.from_numpy(cluster.positions).double()
        energy, forces = energy_and_forces(self.potential, z, pos, torch.zeros_like(z))
        self.results = {"energy": float(energy), "free_energy": float(energy), "forces": forces.numpy()}
