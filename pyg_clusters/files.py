"""Writing files so that a kill, an error or a full disk leaves either the old file or the new one."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pyg_clusters.errors import InputError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path``, with the same suffix, which takes its place at the end of the block.

    The folder is made where it is missing. If the block fails the temporary file is removed and ``path`` is as before.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with replacing(folder / "note.txt") as temporary:
        ...     _ = temporary.write_text("done")
        >>> [file.name for file in folder.iterdir()]
        ['note.txt']

    Raises:
        InputError: If the system refuses to write (an :class:`OSError` within the block): disk full, no permission.
    """
    path = Path(path)
    temporary = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
        raise InputError(f"cannot write {path}: {reason}; make room there or choose another place") from error
    finally:
        with suppress(OSError):  # where not even the folder could be made, the error on its way says so
            temporary.unlink(missing_ok=True)


def file_fingerprint(path: str | Path) -> str:
    """Size and SHA-256 of the content of a file: equal for equal contents, whatever the name or the date.

    It takes about a second per GB. Compressed files are hashed as they are.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "md.xyz"
        >>> _ = file.write_text("1")
        >>> file_fingerprint(file)
        '1 bytes, sha256 6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b'

    Raises:
        InputError: If it cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256")
            return f"{stream.tell()} bytes, sha256 {digest.hexdigest()}"
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
