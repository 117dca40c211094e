"""Exchange and correlation on the integration grid."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pyg_clusters.errors import InputError
from pyg_clusters.labels.dft.pyscf_import import dft

POINTS_AT_ONCE = 2048
"""Most points of a block."""

NEGLIGIBLE = 1e-6
"""A function is left out of a block where it, its gradient and the root of the weight are nowhere more than this."""


@dataclass(frozen=True)
class GridBlock:
    """Points that lie together, with the basis functions that count there, in single precision."""

    coords: np.ndarray
    """Coordinates ``[points, 3]`` in bohr."""
    weights: np.ndarray
    """Weights ``[points]``."""
    functions: np.ndarray
    """Indices of the functions ``[block_functions]``."""
    values: np.ndarray
    """Values of the functions and their gradients ``[4, points, block_functions]``."""

    def density(self, density: np.ndarray) -> np.ndarray:
        """Density and its gradient ``[4, points]`` of a symmetric density matrix."""
        contracted = self.values[0] @ self.of_matrix(density)
        rho = np.array([np.einsum("gi,gi->g", contracted, part) for part in self.values], dtype=float)
        rho[1:] *= 2
        return rho

    def of_matrix(self, matrix: np.ndarray) -> np.ndarray:
        """Rows and columns of the block's functions, in single precision."""
        return matrix[np.ix_(self.functions, self.functions)].astype(np.float32)

    def weighted(self, potential: np.ndarray) -> np.ndarray:
        """The functions times a potential's parts ``[4, points]``, as half of its matrix has them."""
        parts = potential.astype(np.float32)
        scaled = self.values[0] * (0.5 * parts[0])[:, None]
        for gradient, part in zip(self.values[1:], parts[1:], strict=True):
            scaled += gradient * part[:, None]
        return scaled


class IntegrationGrid:
    """The points of a calculation in blocks, with the values of the basis functions, kept where memory allows.

    Args:
        mf: A calculation with a functional of the gradient of the density.
        spare: Bytes of values that may be held instead of being recomputed each time.

    Raises:
        InputError: If the functional is of another kind.
    """

    def __init__(self, mf: "dft.rks.RKS", spare: float = 0.0):
        if mf._numint._xc_type(mf.xc) != "GGA" or mf._numint.rsh_and_hybrid_coeff(mf.xc)[0]:
            raise InputError(f"{mf.xc} is no (hybrid) functional of the density's gradient; choose one, such as b3lyp")
        if mf.grids.coords is None:
            mf.grids.build()
        self.mol, self.functional, self.xc = mf.mol, mf._numint, mf.xc
        self._coords, self._weights = mf.grids.coords, mf.grids.weights
        self._points = points_together(self._coords, POINTS_AT_ONCE)
        self._spare, self._kept = spare, dict[int, GridBlock]()

    def blocks(self) -> Iterator[GridBlock]:
        """The points, block by block."""
        for number, points in enumerate(self._points):
            block = self._kept.get(number)
            if block is None:
                block = self._block(points)
                if block.values.nbytes < self._spare:
                    self._kept[number] = block
                    self._spare -= block.values.nbytes
            yield block

    def _block(self, points: np.ndarray) -> GridBlock:
        coords, weights = self._coords[points], self._weights[points]
        values = dft.numint.eval_ao(self.mol, coords, deriv=1)
        largest = np.abs(values).max(axis=0) * np.sqrt(np.abs(weights))[:, None]
        functions = np.flatnonzero(largest.max(axis=0) > NEGLIGIBLE)
        return GridBlock(coords, weights, functions, np.ascontiguousarray(values[:, :, functions], np.float32))

    def forget(self):
        """Gives the memory of kept values back."""
        self._spare = 0.0
        self._kept.clear()

    def potential(self, densities: np.ndarray) -> tuple[float, np.ndarray]:
        """Energy in hartree and potential matrix of a density.

        Args:
            densities: The density matrix ``[num_functions, num_functions]``, or those of both spins ``[2, ...]``; the
                potential has the same shape.
        """
        spin = densities.ndim - 2
        parts = densities.reshape(-1, *densities.shape[-2:])
        matrices = np.zeros_like(parts)
        energy = 0.0
        for block in self.blocks():
            rho = np.array([block.density(part) for part in parts])
            per_electron, potential = self.functional.eval_xc_eff(
                self.xc, rho if spin else rho[0], deriv=1, xctype="GGA", spin=spin
            )[:2]
            energy += float(rho[:, 0].sum(axis=0) @ (block.weights * per_electron))
            chosen = np.ix_(block.functions, block.functions)
            for matrix, part in zip(matrices, potential.reshape(-1, 4, len(block.weights)), strict=True):
                matrix[chosen] += block.values[0].T @ block.weighted(part * block.weights)
        return energy, (matrices + matrices.swapaxes(-1, -2)).reshape(densities.shape)


def points_together(coords: np.ndarray, most: int) -> list[np.ndarray]:
    """Indices of points in groups of neighbours, halved along their longest side until none has more than ``most``.

    Example:
        >>> points_together(np.array([[0.0, 0, 0], [9, 0, 0], [1, 0, 0], [8, 0, 0]]), 2)
        [array([0, 2]), array([3, 1])]
    """
    groups, whole = [], [np.arange(len(coords))]
    while whole:
        points = whole.pop()
        if len(points) <= most:
            groups.append(points)
            continue
        axis = np.ptp(coords[points], axis=0).argmax()
        points = points[np.argsort(coords[points, axis], kind="stable")]
        whole += [points[len(points) // 2 :], points[: len(points) // 2]]
    return groups
