"""File of frames that grows as they are made, for resumable jobs."""

from collections.abc import Collection, Mapping
from io import StringIO
from pathlib import Path

from ase import Atoms
from ase.io.extxyz import read_xyz

from pyg_clusters.errors import InputError
from pyg_clusters.files import remove_stale
from pyg_clusters.frames.extxyz_text import extxyz_text
from pyg_clusters.frames.resume import check_settings, write_settings
from pyg_clusters.frames.xyz_reader import XYZ_SUFFIXES


class FrameLog:
    """Extended XYZ file to which frames are added one by one, each written at once.

    The settings of the job are kept beside the file, in ``NAME.extxyz.settings.json``: opened again with the same
    settings, the log has the frames that were written and appends after the last complete one. A frame that was cut
    short by a kill is removed.

    Args:
        path: The file, ``.extxyz`` or ``.xyz``.
        settings: Settings that the frames depend on, as JSON has them.
        free: Names of settings that may change when the log is opened again.
        overwrite: Start again with an empty file.

    Raises:
        InputError: If there is a file of other settings or without any, or it cannot be read or written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "frames.extxyz"
        >>> FrameLog(path, {"seed": 0}).append(Atoms("Na2", [[0, 0, 0], [0, 0, 3.1]]))
        >>> len(FrameLog(path, {"seed": 0}).frames)
        1
    """

    def __init__(
        self,
        path: str | Path,
        settings: Mapping[str, object],
        free: Collection[str] = (),
        *,
        overwrite: bool = False,
    ):
        self.path = Path(path)
        self.sidecar = self.path.with_name(self.path.name + ".settings.json")
        if self.path.suffix not in XYZ_SUFFIXES:
            raise InputError(f"{path}: frames are added one by one to a file that ends in .extxyz or .xyz; choose one")
        for file in (self.path, self.sidecar):
            remove_stale(file)
        if overwrite:
            self.path.unlink(missing_ok=True)
        if self.path.exists():
            check_settings(self.sidecar, settings, free, of=self.path)
        write_settings(self.sidecar, settings)
        self.frames: list[Atoms] = self._recover() if self.path.exists() else []
        """Frames that the file had when it was opened."""

    def append(self, atoms: Atoms):
        """Append a frame."""
        text = extxyz_text(atoms)
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(text)
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror}; make room there and start again") from error

    def _recover(self) -> list[Atoms]:
        """Complete frames of the file, which is truncated after the last of them."""
        lines = list(StringIO(self.path.read_text(encoding="utf-8", errors="replace"), newline="\n"))
        frames: list[Atoms] = []
        first, whole = 0, 0
        while first < len(lines) and lines[first].strip().isdigit():
            after = first + int(lines[first]) + 2
            if after > len(lines) or not lines[after - 1].endswith("\n"):
                break
            try:
                frames.append(next(read_xyz(StringIO("".join(lines[first:after])), index=0)))
            except Exception as error:  # ASE raises many kinds, by the part of the text that is wrong
                raise InputError(f"{self.path}, frame {len(frames)}: cannot be read ({error}); remove it") from error
            whole += sum(len(line.encode()) for line in lines[first:after])
            first = after
        rest = "".join(lines[first:])
        if first < len(lines) - 1 and not lines[first].strip().isdigit():
            raise InputError(
                f"{self.path}, frame {len(frames)}: expected a number of atoms, got {rest[:40]!r}; fix or remove it"
            )
        if rest:
            with self.path.open("r+b") as stream:
                stream.truncate(whole)
        return frames
