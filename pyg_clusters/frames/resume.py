"""What a long piece of work was begun with, so that it is gone on with only if it is the same."""

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from pyg_clusters.errors import InputError
from pyg_clusters.files import atomic_write, file_fingerprint


def check_settings(path: Path, settings: Mapping[str, object], free: Collection[str], of: Path):
    """Checks that work which is there was begun with the same settings.

    Args:
        path: The JSON file of its settings.
        settings: In values that JSON knows.
        free: Names of settings that may be others than before.
        of: The work, as messages call it.

    Raises:
        InputError: If there is no such file, or it has other settings.
    """
    if not path.exists():
        raise InputError(f"{of} has no {path.name} beside it: give another name, or pass --overwrite")
    try:
        before = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} is corrupted: give another name for {of}, or pass --overwrite") from error
    settings = json.loads(json.dumps(settings))
    for name in [name for name in {**before, **settings} if name not in free]:
        if before.get(name) != settings.get(name):
            raise InputError(
                f"{of} was begun with {name} = {before.get(name)!r}, not {settings.get(name)!r}; give the same to go "
                "on, another file, or --overwrite to begin anew"
            )


def write_settings(path: Path, settings: Mapping[str, object]):
    """Writes settings to a JSON file.

    Raises:
        InputError: If it cannot be written.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def input_settings(paths: Iterable[Path]) -> dict[str, str]:
    """Name and content of each input file, for the settings of a resumable job.

    A missing file has its name only: reading it is refused.

    Example:
        >>> input_settings([Path("missing.xyz")])
        {'input 0': 'missing.xyz'}
    """
    return {
        f"input {number}": f"{path}, {file_fingerprint(path)}" if path.is_file() else str(path)
        for number, path in enumerate(paths)
    }
