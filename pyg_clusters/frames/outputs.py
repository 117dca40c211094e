"""Outputs of verbs: locked, and never replaced unasked."""

import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pyg_clusters.errors import InputError
from pyg_clusters.files import check_empty, output_lock
from pyg_clusters.frames.paths import is_among


@contextmanager
def open_output(
    path: Path | None,
    command: Sequence[str],
    *,
    inputs: Iterable[str | Path] = (),
    overwrite: bool = False,
    results: Sequence[str] | None = None,
    new_folders: Sequence[Path] = (),
) -> Iterator[bool]:
    """Keep other processes from an output while it is written, and check that it may be.

    A command that ends before all of its results are written, killed even, leaves a note of itself in the lock file:
    the same command may then replace what is there.

    Args:
        path: The file or folder; without it nothing is written.
        command: Verb and arguments.
        inputs: Files that are read.
        overwrite: Whether results that are there may be replaced.
        results: Names of the results in the folder; none, if the output is a file.
        new_folders: Folders that ``overwrite`` does not replace.

    Yields:
        Whether the same command left unfinished results.

    Raises:
        InputError: If another process writes there, or a result is one of the inputs, or is there already and is not
            to be replaced.
    """
    if path is None:
        yield False
        return
    if "" in command:
        raise InputError(f"{command[command.index('') - 1]} is empty; give the name of a file or folder")
    folder = results is not None
    outputs = [path] if results is None else [path / name for name in results]
    text = shlex.join(word for word in command if word != "--overwrite")
    inputs = list(inputs)
    with output_lock(path, folder=folder) as lock:
        again = lock.unfinished == text
        for output in outputs:
            if lock.unfinished and not (overwrite or again) and output.exists():
                raise InputError(
                    f"{path} holds unfinished results of another command, {lock.unfinished!r}; run that again, or pass "
                    "--overwrite to replace them"
                )
            check_output(output, inputs, overwrite or again)
        for output in () if again else new_folders:
            check_empty(output)
        before = [_identity(output) for output in outputs]
        lock.begin(text)
        try:
            yield again
        except BaseException:
            after = [_identity(output) for output in outputs]
            if not any(after) or (after == before and not again):
                lock.finish()
            raise
        lock.finish()


def _identity(path: Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def check_output(path: str | Path, inputs: Iterable[str | Path], overwrite: bool = False):
    """Check that a result may be written to a file.

    Raises:
        InputError: If it is a folder or one of the inputs, or is there already and not to be replaced.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file")
    for given in map(Path, inputs):
        if path.exists() and is_among(path, given):
            raise InputError(f"{path} is one of the inputs and would be lost; choose another --out")
    if path.exists() and not overwrite:
        raise InputError(f"{path} is there already; pass --overwrite to replace it, or choose another --out")
