"""Packed storage of many symmetric matrices of one size in single precision."""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.linalg import blas


class PairedMatrices:
    """Symmetric matrices of one size, stored in pairs in single precision and divided into parts.

    Two n × n matrices share one array ``[n + 1, n]``: the first is the upper triangle of rows 0 to n - 1, the second
    the lower triangle of rows 1 to n. BLAS can multiply with either without unpacking.

    Args:
        parts: Number of matrices of each part ``[num_parts]``.
        size: Number of rows n of each matrix.

    Example:
        >>> pair = PairedMatrices([2], 3)
        >>> for row in range(3):
        ...     pair.set_row(row, np.array([np.eye(3)[row, : row + 1], np.ones(row + 1)]))
        >>> pair.projections(np.diag([2.0, 0.0, 0.0]))
        array([2., 2.])
        >>> pair.combination(np.array([2.0, 1.0]))
        array([[3., 1., 1.],
               [1., 3., 1.],
               [1., 1., 3.]])
    """

    def __init__(self, parts: Sequence[int], size: int):
        self.size = size
        self._counts = [int(count) for count in parts]
        self._parts = [np.zeros(((count + 1) // 2, size + 1, size), np.float32) for count in self._counts]

    def set_row(self, row: int, values: np.ndarray):
        """Set a row of the lower triangle of all matrices, from ``values [count, row + 1]``."""
        start = 0
        for count, part in zip(self._counts, self._parts, strict=True):
            middle = start + len(part)
            part[:, : row + 1, row] = values[start:middle]
            part[: start + count - middle, row + 1, : row + 1] = values[middle : start + count]
            start += count

    def products(self, part: int, columns: np.ndarray) -> np.ndarray:
        """Transposed products ``[count, num_columns, size]`` of the matrices of a part (by its index) with columns
        ``[size, num_columns]``.
        """
        columns = np.asfortranarray(columns, dtype=np.float32)
        pairs = self._parts[part]
        result = np.empty((self._counts[part], columns.shape[1], self.size), np.float32)
        for place, product in enumerate(result):
            upper = place < len(pairs)
            matrix = pairs[place, :-1] if upper else pairs[place - len(pairs), 1:]
            blas.ssymm(1.0, matrix.T, columns, c=product.T, overwrite_c=1, lower=1 if upper else 0)
        return result

    def projections(self, weights: np.ndarray) -> np.ndarray:
        """Contract each matrix with symmetric ``weights [size, size]`` over both indices; return ``[count]``."""
        doubled = 2 * np.tril(weights, -1) + np.diag(weights.diagonal())
        both = np.zeros((2, self.size + 1, self.size))
        both[0, :-1], both[1, 1:] = doubled.T, doubled
        flat = both.reshape(2, -1)
        found = []
        for part, count in self._with_counts():
            pairs = np.array([flat @ pair.ravel().astype(float) for pair in part])
            found.append(pairs.T.ravel()[:count])
        return np.concatenate(found)

    def combination(self, coefficients: np.ndarray) -> np.ndarray:
        """Return the linear combination of all matrices with ``coefficients [count]``, ``[size, size]``."""
        total = np.zeros((2, self.size + 1, self.size))
        start = 0
        for part, count in self._with_counts():
            both = np.zeros(2 * len(part))
            both[:count] = coefficients[start : start + count]
            for pair, (upper, lower) in zip(part, both.reshape(2, -1).T, strict=True):
                values = pair.astype(float)
                total[0] += upper * values
                total[1] += lower * values
            start += count
        triangle = np.triu(total[0, :-1]).T + np.tril(total[1, 1:])
        return triangle + np.tril(triangle, -1).T

    def _with_counts(self) -> Iterator[tuple[np.ndarray, int]]:
        return zip(self._parts, self._counts, strict=True)
