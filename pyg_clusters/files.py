"""Writing files so that a kill, an error, a full disk or a second process leaves either the old file or the new one."""

import errno
import hashlib
import json
import os
import re
import socket
import stat
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from pyg_clusters.errors import InputError, one_line
from pyg_clusters.stopping import check_stopped

TEMPORARY: re.Pattern[str] = re.compile(r"\.partial-[0-9a-f]{12}-(.+)", re.DOTALL)
"""Names of files in the making, and the name that each gets in the end."""

DEPTH: int = 3
"""Levels of an output folder in which temporary files are looked for: its files, figures, a folder per candidate."""

LOCK: str = ".lock"
"""Lock file in an output folder; beside an output file ``NAME`` it is ``.NAME.lock``."""

WHOLE: int = 1_000_000_000
"""Files up to so many bytes are hashed as a whole."""

PIECES: int = 256
PIECE: int = 1_000_000


@contextmanager
def atomic_write(path: str | Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary path beside ``path``, with the same suffix, which takes its place at the end of the block.

    The folder is made where it is missing. If the block fails the temporary file is removed and ``path`` is as before.
    The content is on the disk before the file has its name, so that ``path`` is whole after a power failure too (not
    with ``durable=False``, which does not wait for the disk). Where ``path`` is a symbolic link, the file that it names
    is replaced, and the link stays.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with atomic_write(folder / "note.txt") as temporary:
        ...     _ = temporary.write_text("done")
        >>> [file.name for file in folder.iterdir()]
        ['note.txt']

    Raises:
        InputError: If the system refuses to write (an :class:`OSError` within the block): disk full, no permission; or
            if ``path`` is no file but a device, say.
    """
    path = Path(os.path.realpath(path))
    check_replaceable(path)
    temporary = path.with_name(f".partial-{uuid4().hex[:12]}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        check_stopped()
        if durable:
            _to_disk(temporary)
        os.replace(temporary, path)
        if durable:
            _to_disk(path.parent)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else one_line(error)
        raise InputError(f"cannot write {path}: {reason}; make room there or choose another place") from error
    finally:
        with suppress(OSError):  # where not even the folder could be made, the error on its way says so
            temporary.unlink(missing_ok=True)


def check_replaceable(path: Path):
    """Checks that a file may take the place of what is there.

    Raises:
        InputError: If that is a device, a pipe or a socket, or cannot be looked at: its name is too long, say.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose another place") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"cannot write {path}: it is a device or a pipe; give the name of a file")


def read_json(path: str | Path, remedy: str) -> dict[str, Any]:
    """The mapping in a JSON file that this package wrote.

    Args:
        path: The file.
        remedy: What to do if it is corrupted, for the message.

    Raises:
        InputError: If it cannot be read, is cut, or holds something else.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it holds no mapping")
    except (OSError, ValueError, RecursionError) as error:
        reason = one_line(error)
        raise InputError(f"{path}: corrupted ({reason}); {remedy}") from error
    return values


def write_json(path: str | Path, values: Mapping[str, Any], *, allow_nan: bool = True):
    """Write a mapping to a JSON file, which is replaced as a whole.

    Args:
        path: The file.
        values: The mapping.
        allow_nan: Whether numbers may be NaN or infinite, which JSON does not know.

    Raises:
        ValueError: If such a number is not allowed.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, allow_nan=allow_nan) + "\n", encoding="utf-8")


def _to_disk(path: Path):
    """Waits until a file, or the names in a folder, are on the disk, where the system can tell."""
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        with suppress(OSError) if path.is_dir() else nullcontext():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


class OutputLock:
    """An output that no other process writes at the same time, see :func:`output_lock`.

    Attributes:
        unfinished: The command that wrote some, not all of the results that are there, if there was one.
    """

    def __init__(self, file: Path):
        self.file = file
        self.unfinished: str | None = _note(file).get("unfinished")
        self._write()

    def begin(self, command: str):
        """Note the command that writes the results, until :meth:`finish`."""
        self.unfinished = command
        self._write()

    def finish(self):
        """Note that there are no results, or all of them."""
        self.unfinished = None

    def _write(self):
        # Over the old line and in one call, so that a kill leaves the old line or the new one.
        note = {"process": os.getpid(), "host": socket.gethostname(), "unfinished": self.unfinished}
        with self.file.open("r+b", buffering=0) as stream:
            stream.write((json.dumps(note) + "\n").encode())
            stream.truncate()


@contextmanager
def output_lock(path: str | Path, *, folder: bool = False) -> Iterator[OutputLock]:
    """Keep other processes from writing the same file or folder.

    A lock file, ``.NAME.lock`` beside a file or ``.lock`` in a folder, is locked by the system, which ends that with
    the process, however the process ends. The lock file is removed at the end of the block, unless it has to tell the
    next process of unfinished results. Temporary files of :func:`atomic_write` that a dead process left are removed.
    Several machines exclude each other if their network file system passes locks on (NFS from version 4 on).

    Args:
        path: The file or folder. Folders that do not exist are made, and removed again if they stay empty.
        folder: Whether it is a folder.

    Raises:
        InputError: If another process writes there, or the system refuses to write.

    Example:
        >>> import tempfile
        >>> out = Path(tempfile.mkdtemp()) / "predictions.csv"
        >>> with output_lock(out), output_lock(out):
        ...     pass
        Traceback (most recent call last):
        ...
        pyg_clusters.errors.InputError: ...predictions.csv is being written by process ...
    """
    given, path = path, Path(os.path.realpath(path))
    check_replaceable(path)
    file = path / LOCK if folder else path.with_name(f".{path.name}{LOCK}")
    with _folders(file.parent, given), _locked(file, given):
        try:
            output = OutputLock(file)
        except OSError as error:
            raise InputError(
                f"cannot write {file}: {error.strerror}; make room there or choose another place"
            ) from error
        try:
            remove_stale(path, folder=folder)
            yield output
        finally:
            if output.unfinished is None:
                with suppress(OSError):
                    file.unlink()


@contextmanager
def _folders(path: Path, output: str | Path) -> Iterator[None]:
    """Make a folder and those above it, and remove those of them again that are empty in the end."""
    made = [parent for parent in (path, *path.parents) if not parent.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {output}: {path} is no folder, or cannot be made ({error.strerror})") from error
    try:
        yield
    finally:
        for parent in made:
            if not any(parent.iterdir()):
                parent.rmdir()


@contextmanager
def _locked(file: Path, output: str | Path) -> Iterator[None]:
    lock = FileLock(file, timeout=0, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        note = _note(file)
        by = f"process {note['process']} on {note['host']}" if note else "another process"
        raise InputError(f"{output} is being written by {by}; wait for it, or choose another output") from error
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise InputError(f"cannot write {output}: {error.strerror} ({file}); choose another place") from error
        message = f"{file.parent} is on a file system without locks: start no second process that writes {output}"
        warnings.warn(message, stacklevel=2)
        file.touch()
    try:
        yield
    finally:
        lock.release()


def _note(file: Path) -> dict[str, Any]:
    """Content of a lock file; none, where it is empty or cut."""
    try:
        note = json.loads(file.read_bytes().partition(b"\n")[0])
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) and {"process", "host", "unfinished"} <= note.keys() else {}


def remove_stale(path: Path, *, folder: bool = False):
    """Remove temporary files of :func:`atomic_write` that dead processes left, of a file or folder that is locked.

    Those of other outputs in the same folder, which have lock files of their own, stay.
    """
    if not folder:
        for file in path.parent.glob(".partial-*"):
            if (match := TEMPORARY.fullmatch(file.name)) and match[1] == path.name:
                file.unlink(missing_ok=True)
        return
    for parent, folders, files in os.walk(path):
        depth = len(Path(parent).relative_to(path).parts)
        others = [match[1] for name in files if (match := re.fullmatch(rf"\.(.+){re.escape(LOCK)}", name))]
        folders[:] = [name for name in folders if depth < DEPTH - 1 and not Path(parent, name, LOCK).exists()]
        for name in files:
            if (match := TEMPORARY.fullmatch(name)) and not any(match[1].startswith(other) for other in others):
                Path(parent, name).unlink(missing_ok=True)


def file_fingerprint(path: str | Path, *, whole: bool = False) -> str:
    """Size and SHA-256 of the content of a file: equal for equal contents, whatever the name or the date.

    Compressed files are hashed as they are. Of a file above 1 GB, which would take longer than a second, 256 evenly
    spaced pieces of 1 MB are hashed with the date of its last change.

    Args:
        path: The file.
        whole: Hash all of a large file, too, so that its copies have the same fingerprint.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "md.xyz"
        >>> _ = file.write_text("1")
        >>> file_fingerprint(file)
        '1 bytes, sha256 6b86b273ff34fce1'

    Raises:
        InputError: If it cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if whole or size <= WHOLE:
                return f"{size} bytes, sha256 {hashlib.file_digest(stream, 'sha256').hexdigest()[:16]}"
            digest = hashlib.sha256(str(os.fstat(stream.fileno()).st_mtime_ns).encode())
            for piece in range(PIECES):
                stream.seek((size - PIECE) * piece // (PIECES - 1))
                digest.update(stream.read(PIECE))
            return f"{size} bytes, sha256 of pieces {digest.hexdigest()[:16]}"
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


@contextmanager
def waiting_lock(path: str | Path) -> Iterator[None]:
    """Let one process after the other make a file that all of them need.

    Args:
        path: The file, beside which ``.NAME.lock`` is locked by the system. Folders that do not exist are made.

    Raises:
        InputError: If the system refuses to write there.
    """
    path = Path(path)
    file = path.with_name(f".{path.name}{LOCK}")
    lock = FileLock(file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose another folder") from error
    try:
        yield
    finally:
        with suppress(OSError):  # whoever waits for the removed file makes a new one
            file.unlink()
        lock.release()


def check_empty(folder: Path):
    """Check that a folder for structures is not there, or empty.

    Raises:
        InputError: If it is not.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(
            f"{folder} is there already, maybe with results for other structures; move it away, or choose another --out"
        )
