"""Files of frames out of files, folders and patterns."""

import os
import re
import warnings
from collections.abc import Iterable
from glob import glob, has_magic
from pathlib import Path

from pyg_clusters.errors import InputError
from pyg_clusters.frames.formats import file_format, holds_structures


def expand_paths(paths: str | os.PathLike | Iterable[str | os.PathLike]) -> list[Path]:
    r"""The files that paths name, in their order.

    A pattern (``md/*.xyz``, ``runs/**/OUTCAR``) stands for the files that match it, a folder for the structures in it
    (not in folders within it), both in natural order: ``frame2.xyz`` before ``frame10.xyz``. Hidden files are left out;
    so are files of a folder that hold no structures, with a warning that counts them. A missing file is kept: reading
    it is refused.

    Args:
        paths: Files, folders and patterns, or one of them.

    Raises:
        InputError: If a pattern matches nothing, a folder has no structures or those of several formats, or a name is
            not UTF-8.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("au10.xyz", "au2.xyz"):
        ...     _ = (folder / name).write_text("1\n\nAu 0 0 0\n")
        >>> [path.name for path in expand_paths(folder)]
        ['au2.xyz', 'au10.xyz']
    """
    given = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    files = [file for path in given for file in _expand(Path(path))]
    for file in files:
        check_name(file)
    return files


def is_among(path: Path, given: Path) -> bool:
    """Whether a file that is there is one of those that a file, folder or pattern stands for."""
    if given.is_dir():
        return path.parent.samefile(given) and holds_structures(path)
    if given.exists():
        return path.samefile(given)
    return has_magic(str(given)) and any(path.samefile(file) for file in _expand(given))


def natural_order(path: Path) -> list[tuple[int, int, str]]:
    """A key that sorts numbers within names by their value."""
    parts = re.findall(r"\d+|\D+", str(path))
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]


def check_name(path: Path):
    """Checks that the name of a file can be written into results.

    Raises:
        InputError: If it is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise InputError(f"{str(path)!a}: the name is not UTF-8; rename the file") from None


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        return _structures_in(path)
    if path.exists() or not has_magic(str(path)):
        return [path]
    files = [Path(name) for name in glob(str(path), recursive=True)]
    files = sorted((file for file in files if file.is_file()), key=natural_order)
    if not files:
        raise InputError(f"{path}: no file matches; check the pattern")
    return files


def _structures_in(folder: Path) -> list[Path]:
    entries = sorted(folder.iterdir(), key=natural_order)
    visible = [entry for entry in entries if not entry.name.startswith(".")]
    files = [entry for entry in visible if entry.is_file() and holds_structures(entry)]
    others = [ascii(entry.name)[1:-1] for entry in visible if entry not in set(files)]
    if not files:
        raise InputError(
            f"{folder}: no files of structures in the folder; give files, or a pattern in quotes such as "
            f"'{folder}/*/OUTCAR'"
        )
    formats = {file_format(file): file.name for file in files}
    if len(formats) > 1:
        some = ", ".join(f"{name} ({kind})" for kind, name in formats.items())
        raise InputError(f"{folder}: files of several formats in the folder: {some}; give a pattern in quotes instead")
    if others:
        some = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        warnings.warn(f"{folder}: {len(others)} entries are no structures and are left out: {some}", stacklevel=4)
    return files
