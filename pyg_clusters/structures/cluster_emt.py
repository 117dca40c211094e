"""ASE's effective medium theory, evaluated on all pairs at once."""

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT, beta
from scipy.special import expit

from pyg_clusters.errors import InputError


class ClusterEMT(EMT):
    r"""ASE's :class:`~ase.calculators.emt.EMT` for isolated clusters: the same energies and forces, faster.

    Effective medium theory (Jacobsen, Stoltze, Nørskov, Surf. Sci. 1996, 366, 394) with the parameters of ASE, for Al,
    Ni, Cu, Pd, Ag, Pt, Au and their alloys. As in ASE the energies are relative to the pure crystals.
    Clusters of 20 to 60 atoms take a seventh to a twentieth of the time, in dense arrays over all pairs.

    Example:
        >>> dimer = Atoms("CuAu", [[0, 0, 0], [0, 0, 2.4]], calculator=ClusterEMT())
        >>> print(f"{dimer.get_potential_energy():.4f} eV")
        3.1924 eV
    """

    def calculate(self, atoms: Atoms | None = None, properties=("energy",), system_changes=tuple(all_changes)):
        """Fills in the results; called by ASE."""
        Calculator.calculate(self, atoms, list(properties), list(system_changes))
        cluster = self.atoms
        assert cluster is not None
        if cluster.pbc.any():
            raise InputError("this calculator is for isolated clusters: set atoms.pbc = False")
        if "numbers" in system_changes:
            self.initialize(cluster)
            self._of_atoms = {name: values[self.ia2iz] for name, values in self.par.items()}
            self._chi = self.chi[np.ix_(self.ia2iz, self.ia2iz)]
            self._no_pair = np.identity(len(cluster)) > 0
        self._evaluate(cluster.positions)

    def _evaluate(self, pos: np.ndarray):
        # Index i is the atom whose neutral sphere is filled, j the neighbour that fills it.
        of = self._of_atoms
        s0, eta2, kappa = of["s0"], of["eta2"], of["kappa"]
        apart = pos[None] - pos[:, None]  # [num_atoms, num_atoms, 3], from i to j
        r = np.sqrt((apart**2).sum(axis=2))
        outside = self._no_pair | (r >= self.rc_list)
        r[self._no_pair] = 1.0
        cut = expit(self.acut * (self.rc - r))
        slope = self.acut * (cut - 1)  # logarithmic slope of the cut-off function
        cut[outside] = 0.0

        filling = np.exp(-eta2 * (r - beta * s0)) * self._chi * cut
        sigma = filling.sum(axis=1)
        alone = sigma == 0
        sigma[alone] = 1.0
        ds = -np.log(sigma * of["inv12gamma1"]) / (beta * eta2)
        stretch = of["lambda"] * ds
        cohesive = of["E0"] * np.exp(-stretch)
        repulsive = 6 * of["V0"] * np.exp(-kappa * ds)
        energies = cohesive * (1 + stretch) + repulsive
        deds = (cohesive * of["lambda"] * stretch + kappa * repulsive) / (beta * eta2 * sigma)
        energies[alone] = deds[alone] = 0.0

        pair = of["neghalfv0overgamma2"][:, None] * np.exp(-kappa * (r / beta - s0)) * self._chi * cut
        self.energies = energies + 0.5 * (pair + pair.T).sum(axis=1) - of["E0"]

        radial = deds[:, None] * filling * (slope - eta2) + pair * (slope - kappa / beta)
        radial = (radial + radial.T) / r
        self.forces = (radial[:, :, None] * apart).sum(axis=1)
        energy = float(self.energies.sum())
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "energies": self.energies,
            "forces": self.forces,
        }
