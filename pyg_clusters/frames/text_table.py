"""Columns of numbers and words out of text."""

from collections.abc import Mapping

import numpy as np
import pyarrow
import pyarrow.csv

SPACE, NEWLINE = b" \n"

BLANKS_TO_SPACES: bytes = bytes.maketrans(b"\t\r", b"  ")

BYTES_AT_ONCE: int = 1 << 16
"""So much text is spaced at a time."""

TYPES: Mapping[str, pyarrow.DataType] = {
    "S": pyarrow.string(),
    "R": pyarrow.float64(),
    "I": pyarrow.int64(),
    "L": pyarrow.string(),
    "E": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
}
"""Types of columns: text, real numbers, integers, booleans (as text), and labels of few kinds."""


def text_table(text: bytes, columns: Mapping[str, str], num_rows: int) -> pyarrow.Table | None:
    """Lines of words between blanks as a table; none if a line has not all columns, or another type.

    Args:
        text: The lines.
        columns: Letter of the type in :data:`TYPES` of each column, by its name.
        num_rows: Number of lines.
    """
    if any(blanks in text for blanks in (b"  ", b" \n", b"\n ", b"\t", b"\r")) or text.startswith(b" "):
        text = single_spaced(text)
    try:
        table = pyarrow.csv.read_csv(
            pyarrow.BufferReader(text),
            pyarrow.csv.ReadOptions(use_threads=False, block_size=len(text) + 1, column_names=list(columns)),
            pyarrow.csv.ParseOptions(delimiter=" ", quote_char=False, double_quote=False, ignore_empty_lines=False),
            pyarrow.csv.ConvertOptions(
                column_types={name: TYPES[kind] for name, kind in columns.items()},
                null_values=[],
                strings_can_be_null=False,
            ),
        )
    except pyarrow.ArrowException:
        return None
    return table if table.num_rows == num_rows else None


def single_spaced(text: bytes) -> bytes:
    r"""Lines of words with one space between each two, and none elsewhere.

    Example:
        >>> single_spaced(b"  Ga\t 1   2\r\nNa 3 4 \n")
        b'Ga 1 2\nNa 3 4\n'
    """
    text = text.translate(BLANKS_TO_SPACES)
    pieces, start = [], 0
    while start < len(text):  # the arrays of a piece stay in the cache
        end = text.find(b"\n", start + BYTES_AT_ONCE) + 1 or len(text)
        characters = np.frombuffer(text, dtype=np.uint8, count=end - start, offset=start)
        keep = characters != SPACE
        keep[:-1] |= keep[1:] & (characters[1:] != NEWLINE)  # the last blank before a word
        characters = characters[keep]
        leads = characters == SPACE
        leads[1:] &= characters[:-1] == NEWLINE
        pieces.append((characters[~leads] if leads.any() else characters).tobytes())
        start = end
    return b"".join(pieces)
