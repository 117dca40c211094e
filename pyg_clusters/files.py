"""Atomic writing: after a kill, an error or a full disk, a file is either the old or the new one; output locks."""

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

from pyg_clusters.concurrency import check_stopped
from pyg_clusters.errors import InputError, one_line

TEMPORARY: re.Pattern[str] = re.compile(r"\.partial-[0-9a-f]{12}-(.+)", re.DOTALL)
"""Matches names of temporary files, and the final name of each."""

DEPTH: int = 3
"""Levels of an output folder that are searched for temporary files: its files, figures, a folder per candidate."""

LOCK: str = ".lock"  # lock file in an output folder; next to an output file NAME it is .NAME.lock
WHOLE: int = 1_000_000_000  # largest size in bytes of files that are hashed as a whole

PIECES: int = 256
PIECE: int = 1_000_000


@contextmanager
def atomic_write(path: str | Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path next to ``path``, with the same suffix, which replaces it at the end of the block.

    A missing folder is created. If the block fails, the temporary file is removed and ``path`` is unchanged. The
    content is flushed to disk before the file is renamed, so that ``path`` is complete even after a power failure
    (unless ``durable=False``). If ``path`` is a symbolic link, its target is replaced and the link is kept.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with atomic_write(folder / "note.txt") as temporary:
        ...     _ = temporary.write_text("done")
        >>> [file.name for file in folder.iterdir()]
        ['note.txt']

    Raises:
        InputError: If the file cannot be written (an :class:`OSError` within the block: disk full, no permission), or
            ``path`` is not a file but, for example, a device.
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
        with suppress(OSError):  # if not even the folder could be created, that error is raised
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str):
    """Write a text file by :func:`atomic_write`."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_replaceable(path: Path):
    """Check that a path may be replaced by a file.

    Raises:
        InputError: If it is a device, pipe or socket, or cannot be examined.
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
    """Read a mapping from a JSON file that this package wrote.

    Raises:
        InputError: If it cannot be read, is truncated, or does not contain a mapping; the message ends with the remedy.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("not a mapping")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: corrupted ({one_line(error)}); {remedy}") from error
    return values


def write_json(path: str | Path, values: Mapping[str, Any], *, allow_nan: bool = True):
    """Write a mapping to a JSON file atomically.

    Raises:
        ValueError: If a number is NaN or infinite, which standard JSON does not allow, without ``allow_nan``.
    """
    write_text(path, json.dumps(values, indent=2, allow_nan=allow_nan) + "\n")


def _to_disk(path: Path):
    """Flush a file, or the entries of a folder, to disk where the system supports it."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        with suppress(OSError) if path.is_dir() else nullcontext():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


class OutputLock:
    """Lock of an output, see :func:`output_lock`.

    Attributes:
        unfinished: Command that wrote only part of the existing results, if any.
    """

    def __init__(self, file: Path):
        self.file = file
        self.unfinished: str | None = _note(file).get("unfinished")
        self._write()

    def begin(self, command: str):
        """Record the command that writes the results, until :meth:`finish`."""
        self.unfinished = command
        self._write()

    def finish(self):
        """Record that the results are complete, or that there are none."""
        self.unfinished = None

    def _write(self):
        # Overwrite the old line in one call, so that a kill leaves either the old or the new line.
        note = {"process": os.getpid(), "host": socket.gethostname(), "unfinished": self.unfinished}
        with self.file.open("r+b", buffering=0) as stream:
            stream.write((json.dumps(note) + "\n").encode())
            stream.truncate()


@contextmanager
def output_lock(path: str | Path, *, folder: bool = False) -> Iterator[OutputLock]:
    """Prevent other processes from writing the same file or folder.

    The operating system locks a file, ``.NAME.lock`` next to a file or ``.lock`` in a folder, and releases it when the
    process ends in any way. The lock file is removed at the end of the block, unless it records unfinished results.
    Temporary files left by a killed :func:`atomic_write` are removed. The lock works across machines if their network
    file system supports locks (NFS from version 4).

    Args:
        path: The file or folder. Missing folders are created, and removed again if they stay empty.
        folder: Whether it is a folder.

    Raises:
        InputError: If another process is writing to the path, or it cannot be written.

    Example:
        >>> import tempfile
        >>> out = Path(tempfile.mkdtemp()) / "predictions.csv"
        >>> with output_lock(out), output_lock(out):
        ...     pass
        Traceback (most recent call last):
        ...
        pyg_clusters.errors.InputError: ...predictions.csv is being written by process ...
    """
    output_path, path = path, Path(os.path.realpath(path))
    check_replaceable(path)
    file = path / LOCK if folder else path.with_name(f".{path.name}{LOCK}")
    with _folders(file.parent, output_path), _locked(file, output_path):
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
    """Create a folder and its parents, and remove those that are still empty at the end of the block."""
    created = [parent for parent in (path, *path.parents) if not parent.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {output}: cannot create the folder {path} ({error.strerror})") from error
    try:
        yield
    finally:
        for parent in created:
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
        message = f"{file.parent} is on a file system without locks: do not start a second process that writes {output}"
        warnings.warn(message, stacklevel=2)
        file.touch()
    try:
        yield
    finally:
        lock.release()


def _note(file: Path) -> dict[str, Any]:
    """Content of a lock file; an empty mapping if the file is empty or truncated."""
    try:
        note = json.loads(file.read_bytes().partition(b"\n")[0])
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) and {"process", "host", "unfinished"} <= note.keys() else {}


def remove_stale(path: Path, *, folder: bool = False):
    """Remove temporary files left by a killed :func:`atomic_write` of a locked file or folder.

    Temporary files of other outputs in the same folder, which have their own lock files, are kept.
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


def file_fingerprint(path: str | Path) -> str:
    """Size and SHA-256 of the content of a file, independent of its name and date.

    Compressed files are hashed without unpacking. For files above 1 GB, which would take longer than a second, only 256
    evenly spaced pieces of 1 MB and the modification time are hashed.

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
            if size <= WHOLE:
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
    """Let only one process at a time create a file that several need; the others wait.

    The operating system locks ``.NAME.lock`` in the same folder. Missing folders are created.

    Raises:
        InputError: If the lock file cannot be written.
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
        with suppress(OSError):  # a process that waits for the removed file creates a new one
            file.unlink()
        lock.release()


def check_empty(folder: Path):
    """Check that a folder for structures does not exist or is empty."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(
            f"{folder} already exists, perhaps with results for other structures; move it away, or choose another --out"
        )


def cache_folder() -> Path:
    """Folder of processed files, ``pyg_clusters`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyg_clusters"
