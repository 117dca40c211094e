"""Columns of numbers and words out of text."""

from collections.abc import Mapping

import numpy as np
import pyarrow
import pyarrow.csv

SPACE, NEWLINE = b" \n"

IS_BLANK: np.ndarray = np.isin(np.arange(256), list(b" \t\r"))
"""Whether a byte is a blank within a line."""

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
    characters = np.frombuffer(text, dtype=np.uint8)
    blank = IS_BLANK[characters]
    keep = ~blank
    keep[:-1] |= keep[1:] & (characters[1:] != NEWLINE)  # the last blank before a word
    characters = np.where(blank, SPACE, characters)[keep]
    first = np.ones(len(characters), dtype=bool)
    first[1:] = characters[:-1] == NEWLINE
    return characters[~(first & (characters == SPACE))].tobytes()
