"""Electronic structure of sodium clusters by the extended Hückel method, as input of models of shieldings."""

import math
from typing import ClassVar

import torch
from ase.data import chemical_symbols
from ase.units import Bohr
from torch import Tensor, nn

from pyg_clusters.errors import InputError
from pyg_clusters.geometry import batch_to_ptr, is_traced
from pyg_clusters.positions import usable_positions

SODIUM: int = 11

ENERGIES: tuple[float, float] = (-5.14, -3.04)
"""Energies of 3s and 3p in eV: minus the ionisation energies of the ground state and of the first excited state."""

ZETA: float = 0.8358
"""Slater exponent of 3s (Clementi & Raimondi, `doi 10.1063/1.1733573 <https://doi.org/10.1063/1.1733573>`_), used for
3p as well, in 1/bohr."""

WOLFSBERG_HELMHOLZ: float = 1.75  # Hoffmann 1963

STO_3G: tuple[tuple[float, ...], ...] = (
    (0.482854081, 0.134715063, 0.052726563),
    (-0.219620369, 0.225595434, 0.900398426),
    (0.010587604, 0.595167005, 0.462001012),
)
"""Exponents of the STO-3G functions of a Slater exponent of one, and coefficients of 3s and 3p (Hehre et al., `doi
10.1063/1.1673374 <https://doi.org/10.1063/1.1673374>`_)."""

SMEARING: float = 0.025
"""Width kT of the Fermi-Dirac occupation in eV, which makes the features continuous where levels cross."""

BROADENING: float = 0.25
"""Width kT in eV of the occupation by which states near the Fermi level are counted."""

LINEARLY_DEPENDENT: float = 1e-6  # eigenvalues of the overlap matrix below this are raised to it

VALUES_AT_ONCE: int = 2_000_000  # maximum size of the matrices of the clusters computed together


class ExtendedHuckel(nn.Module):
    r"""Features of the atoms of sodium clusters from an extended Hückel calculation.

    The basis is 3s and 3p on each atom, with one electron per atom minus the charge, and the lowest spin. Diagonal
    elements of the Hamiltonian are atomic energies, the others :math:`H_{\mu\nu} = 1.75\, S_{\mu\nu} (H_{\mu\mu} +
    H_{\nu\nu}) / 2` (Hoffmann 1963, `doi 10.1063/1.1734456 <https://doi.org/10.1063/1.1734456>`_). No parameter is
    fitted to shieldings.

    The features of atom A are

    - the density of 3s, and the three eigenvalues of that of 3p, in electrons;
    - the gross populations of 3s and 3p, in electrons;
    - the three eigenvalues of the paramagnetic part of its shielding tensor without the constant factor (Pople, J.
      Chem. Phys. 37, 53, 1962), and the contribution of A alone to their mean, in 1/eV:

      .. math::
          T^A_{ab} = -\sum_{pq} \frac{f_p - f_q}{\varepsilon_q - \varepsilon_p}\,
          L^A_{a,pq} \sum_B L^B_{b,pq}, \qquad L^A_{x,pq} = c^A_{yp} c^A_{zq} - c^A_{zp} c^A_{yq}

      with the occupation f (0 to 1) of each level;

    - the numbers of 3s and 3p states near the Fermi level, each with the weight :math:`4 g (1 - g)` for an occupation
      g at kT = 0.25 eV.

    They are invariant to rotation and reflection, and depend on the whole cluster. The cost grows with the cube of the
    number of atoms (about 10 ms for Na40 on one core). Gradients with respect to positions are not finite if levels are
    degenerate. The features of a cluster with coinciding atoms or positions that are not finite are NaN.

    Shapes:
        - **input:** atomic numbers ``z [num_atoms]``, positions ``pos [num_atoms, 3]`` in Å, cluster indices ``batch
          [num_atoms]`` (sorted), ``charge`` of each cluster in e
        - **output:** ``[num_atoms, 12]``

    Example:
        >>> pos = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 3.1]])  # the dimer: a bond of 3s, with some 3p along it
        >>> x = ExtendedHuckel()(torch.tensor([11, 11]), pos, torch.tensor([0, 0]))
        >>> x.shape, x[0, 4:6].sum().round(decimals=4).item()
        (torch.Size([2, 12]), 1.0)
    """

    num_features: int = 12

    _latest: ClassVar[tuple[Tensor, Tensor, int, Tensor] | None] = None
    """Positions, cluster indices, charge and features of the latest call, which other members of an ensemble repeat."""

    @torch.compiler.disable
    def forward(self, z: Tensor, pos: Tensor, batch: Tensor, charge: int | Tensor = 0) -> Tensor:
        """Features of the atoms, in the type of the positions.

        Raises:
            InputError: If there are other elements than sodium.
            NotImplementedError: In torch.export and torch.jit.trace.
        """
        if is_traced():
            raise NotImplementedError("extended Hückel features cannot be exported or traced")
        charge = int(charge)
        if bool((z != SODIUM).any()):
            others = ", ".join(chemical_symbols[number] for number in z[z != SODIUM].unique().tolist())
            raise InputError(f"the extended Hückel method has parameters for Na only, not for {others}")
        pos, defect = usable_positions(pos, batch)
        if pos.requires_grad and torch.is_grad_enabled():
            return self._features(pos, batch, charge) + defect[:, None]
        latest = ExtendedHuckel._latest
        if latest is None or not (_same(latest[0], pos) and _same(latest[1], batch) and latest[2] == charge):
            with torch.inference_mode(False), torch.no_grad():  # a later call may be one of training
                latest = pos.clone(), batch.clone(), charge, self._features(pos, batch, charge)
                ExtendedHuckel._latest = latest
        return latest[3] + defect[:, None]

    def _features(self, pos: Tensor, batch: Tensor, charge: int) -> Tensor:
        ptr = batch_to_ptr(batch)
        sizes = ptr.diff()
        features = pos.new_empty(pos.size(0), self.num_features)
        for size in sizes[sizes > 0].unique().tolist():
            atoms = ptr[:-1][sizes == size][:, None] + torch.arange(size, device=pos.device)
            for some in atoms.split(max(1, VALUES_AT_ONCE // (4 * size) ** 2)):
                features[some] = self._of_size(pos[some].double(), charge).to(pos.dtype)
        return features

    def _of_size(self, pos: Tensor, charge: int) -> Tensor:
        """Features ``[num_graphs, num_atoms, 12]`` of clusters of one size; p and q are orbitals of the cluster."""
        num = pos.size(1)
        overlap = overlaps(pos)
        energy = pos.new_tensor(ENERGIES).repeat_interleave(torch.tensor([num, 3 * num], device=pos.device))
        hamiltonian = WOLFSBERG_HELMHOLZ / 2 * overlap * (energy[:, None] + energy)
        hamiltonian = hamiltonian + torch.diag(energy) - torch.diag_embed(hamiltonian.diagonal(dim1=1, dim2=2))
        values, vectors = torch.linalg.eigh(overlap)
        orthogonal = vectors * values.clamp(min=LINEARLY_DEPENDENT).rsqrt()[:, None]
        level, orbital = torch.linalg.eigh(orthogonal.mT @ hamiltonian @ orthogonal)  # [num_graphs, 4 num_atoms]
        orbital = orthogonal @ orbital
        occupation = 2 * _fermi_dirac(level, num - charge, SMEARING)
        broad = _fermi_dirac(level, num - charge, BROADENING)
        near = 4 * broad * (1 - broad)

        shape = (-1, 4, num, 4 * num)
        gross = ((orbital * (overlap @ orbital)) @ occupation[:, :, None]).view(-1, 4, num)
        s, p = orbital.view(shape).split([1, 3], dim=1)
        s = s[:, 0]
        density_p = torch.einsum("gaip,gbip,gp->giab", p, p, occupation)
        weight = _response_weights(level, occupation)
        y, z = p.roll(-1, 1), p.roll(-2, 1)
        angular = y.mT @ z
        angular = (angular - angular.mT) * weight[:, None]
        tensor = -2 * torch.einsum("gaip,gbpq,gaiq->giab", y, angular, z)
        squares, products = (y**2 @ weight[:, None]) * z**2, ((y * z) @ weight[:, None]) * (y * z)
        own = -2 / 3 * (squares - products).sum(dim=(1, 3))
        columns = [
            (s**2 @ occupation[:, :, None]).squeeze(-1),
            *torch.linalg.eigvalsh(density_p).unbind(-1),
            gross[:, 0],
            gross[:, 1:].sum(1),
            *torch.linalg.eigvalsh((tensor + tensor.mT) / 2).unbind(-1),
            own,
            (s**2 @ near[:, :, None]).squeeze(-1),
            ((p**2).sum(1) @ near[:, :, None]).squeeze(-1),
        ]
        return torch.stack(columns, dim=-1)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.device == b.device and a.dtype == b.dtype and torch.equal(a, b)


def overlaps(pos: Tensor) -> Tensor:
    """Overlap matrices of 3s, 3px, 3py and 3pz of all atoms, ``[num_graphs, 4 num_atoms, 4 num_atoms]``.

    Args:
        pos: Positions ``[num_graphs, num_atoms, 3]`` in Å, double precision.
    """
    vector = (pos[:, :, None] - pos[:, None]) / Bohr
    exponent, s, p = pos.new_tensor(STO_3G)
    exponent = exponent * ZETA**2
    a, b = exponent[:, None], exponent[None]
    s, p = s * (2 * exponent / math.pi) ** 0.75, 2 * exponent.sqrt() * p * (2 * exponent / math.pi) ** 0.75
    reduced = a * b / (a + b)
    gaussian = torch.exp(-reduced[:, :, None, None, None] * (vector**2).sum(-1))  # [3, 3, num_graphs, atoms, atoms]

    def contracted(factor: Tensor) -> Tensor:
        return torch.einsum("kl,klgij->gij", factor * (math.pi / (a + b)) ** 1.5, gaussian)

    ss = contracted(s[:, None] * s)
    sp = contracted(s[:, None] * p * a / (a + b))[..., None] * vector  # s of the first atom, p of the second
    pp = contracted(p[:, None] * p / (2 * (a + b)))[..., None, None] * torch.eye(3).to(pos)
    pp = (
        pp
        - contracted(p[:, None] * p * reduced / (a + b))[..., None, None] * vector[..., :, None] * vector[..., None, :]
    )
    s_rows = torch.cat([ss[..., None], sp], dim=-1)[:, :, None]  # [num_graphs, atoms, 1, atoms, 4]
    p_rows = torch.cat([-sp[..., None], pp], dim=-1).transpose(2, 3)
    blocks = torch.cat([s_rows, p_rows], dim=2)  # [num_graphs, atoms, 4, atoms, 4]
    return blocks.permute(0, 2, 1, 4, 3).reshape(pos.size(0), 4 * pos.size(1), -1)


def _fermi_dirac(level: Tensor, electrons: int, width: float) -> Tensor:
    """Occupations (0 to 1) of the levels ``[num_graphs, num_levels]`` in eV, two electrons each."""
    with torch.no_grad():
        low, high = level[:, 0] - 40 * width, level[:, -1] + 40 * width
        for _ in range(60):
            fermi = (low + high) / 2
            too_many = 2 * torch.sigmoid((fermi[:, None] - level) / width).sum(1) > electrons
            low, high = torch.where(too_many, low, fermi), torch.where(too_many, fermi, high)
        share = torch.sigmoid((fermi[:, None] - level) / width)
        change = 2 * (share * (1 - share)).sum(1).clamp(min=1e-6) / width
    if level.requires_grad:  # the same energy as a step of Newton's method, which has its gradient
        fermi = fermi + (electrons - 2 * torch.sigmoid((fermi[:, None] - level) / width).sum(1)) / change
    return torch.sigmoid((fermi[:, None] - level) / width)


def _response_weights(level: Tensor, occupation: Tensor) -> Tensor:
    """(f_p - f_q) / (e_q - e_p) of pairs of levels in 1/eV, ``[num_graphs, num_levels, num_levels]``, halved."""
    between = level[:, None] - level[:, :, None]
    equal = between.abs() < 1e-3 * SMEARING
    share = occupation / 2
    limit = 2 * share * (1 - share) / SMEARING  # of equal levels
    difference = occupation[:, :, None] - occupation[:, None]
    return torch.where(equal, limit[:, None].expand_as(equal), difference / torch.where(equal, 1.0, between)) / 2
