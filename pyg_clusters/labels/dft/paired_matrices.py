"""Many symmetric matrices in half of the memory."""

from collections.abc import Iterator

import numpy as np
from scipy.linalg import blas

AT_ONCE = 128
"""Matrices of one array."""


class PairedMatrices:
    """Symmetric matrices of one size, in single precision.

    Two of them lie in an array of a row more than columns: of rows 0 to n - 1 the upper triangle is one matrix, of rows
    1 to n the lower triangle is another. BLAS multiplies with either as it is.

    Args:
        count: Number of matrices.
        size: Rows of each.

    Example:
        >>> pair = PairedMatrices(2, 3)
        >>> pair.set_block(0, np.array([np.eye(3), np.ones((3, 3))]))
        >>> pair.weighted_sum(np.diag([2.0, 0.0, 0.0]))  # 2 times the first matrix, and 2 times the second
        array([[4., 2., 2.],
               [2., 4., 2.],
               [2., 2., 4.]])
    """

    def __init__(self, count: int, size: int):
        self.size = size
        self._counts = [min(AT_ONCE, count - start) for start in range(0, count, AT_ONCE)]
        self._parts = [np.zeros(((count + 1) // 2, size + 1, size), np.float32) for count in self._counts]

    def set_row(self, row: int, values: np.ndarray):
        """Sets a row of the lower triangle of all matrices, ``[count, row + 1]``."""
        start = 0
        for count, part in zip(self._counts, self._parts, strict=True):
            middle = start + len(part)
            part[:, : row + 1, row] = values[start:middle]
            part[: start + count - middle, row + 1, : row + 1] = values[middle : start + count]
            start += count

    def set_block(self, start: int, matrices: np.ndarray):
        """Sets the matrices ``[block, size, size]`` of one array, which begins with the matrix ``start``."""
        part = self._parts[start // AT_ONCE]
        lower = np.tri(self.size, dtype=bool)
        np.copyto(part[:, :-1], matrices[: len(part)], where=lower.T)
        np.copyto(part[: len(matrices) - len(part), 1:], matrices[len(part) :], where=lower)

    def products(self, columns: np.ndarray, last: bool = False) -> Iterator[tuple[int, int, np.ndarray]]:
        """First and last matrix of a block, and the transposes of their products with columns.

        The array ``[block, num_columns, size]`` is used again for the next block.

        Args:
            columns: What is multiplied, ``[size, num_columns]``.
            last: The matrices are not needed any more: the memory of each block is given back.
        """
        columns = np.asfortranarray(columns, dtype=np.float32)
        buffer = np.empty((AT_ONCE, columns.shape[1], self.size), np.float32)
        start = 0
        for number, (count, part) in enumerate(zip(self._counts, self._parts, strict=True)):
            for place, product in enumerate(buffer[:count]):
                upper = place < len(part)
                matrix = part[place, :-1] if upper else part[place - len(part), 1:]
                blas.ssymm(1.0, matrix.T, columns, c=product.T, overwrite_c=1, lower=1 if upper else 0)
            if last:
                self._parts[number] = part = np.empty((0, *part.shape[1:]), np.float32)
            yield start, start + count, buffer[:count]
            start += count

    def weighted_sum(self, weights: np.ndarray) -> np.ndarray:
        """Sum of the matrices M, each times the sum of its elements' products with ``weights [size, size]``."""
        doubled = np.tril(weights + weights.T, -1) + np.diag(weights.diagonal())
        both = np.zeros((2, self.size + 1, self.size), np.float32)
        both[0, :-1], both[1, 1:] = doubled.T, doubled
        total = np.zeros((2, both[0].size))
        for part in self._parts:
            matrices = part.reshape(len(part), -1)
            total += (both.reshape(2, -1) @ matrices.T) @ matrices
        upper, lower = total.reshape(both.shape)
        triangle = np.triu(upper[:-1]).T + np.tril(lower[1:])
        return triangle + np.tril(triangle, -1).T
