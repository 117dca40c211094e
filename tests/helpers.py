"""Functions shared by several test files."""

import csv
import gc
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from torch import Tensor

from pyg_clusters.cli import main
from pyg_clusters.errors import InputError
from pyg_clusters.frames import FrameBlock, Frames
from pyg_clusters.models import DART
from pyg_clusters.models.checkpoint import save_model
from pyg_clusters.testing import random_clusters

CHROMIUM: str | None = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine (Debian: apt install chromium)"
)


def refused(arguments: list, capsys) -> str:
    """Single line of the error message of a command."""
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    lines = error.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("pyg-clusters: "), error
    return lines[0]


def assert_refused(call: Callable[[], object], *words: object):
    """Check that a call raises an error whose message is one line with the given words."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message, message


def in_child(work: Callable[[], int]) -> int:
    """Run work silently in a child process, and return its process id."""
    child = os.fork()
    if child == 0:
        gc.freeze()  # a garbage collection would copy all memory shared with the parent
        code = 1
        try:
            sys.stdout = sys.stderr = open(os.devnull, "w")
            code = work()
        finally:
            os._exit(code)
    return child


def status_of(work: Callable[[], int]) -> int:
    """Run work in a child process, and return its wait status."""
    return os.waitpid(in_child(work), 0)[1]


def kill(*args):
    """Kill this process; replaces a function."""
    os.kill(os.getpid(), signal.SIGKILL)


def half_saved(content, stream):
    """Write part of a stream, then kill this process; replaces ``torch.save``."""
    stream.write(b"half")
    stream.flush()
    kill()


def rows_of(path: Path) -> list[dict[str, str]]:
    """Rows of a table of comma-separated values."""
    with path.open() as stream:
        return list(csv.DictReader(stream))


def only_block(path: Path, **kwargs) -> FrameBlock:
    """Frames of a file that consists of one block."""
    (block,) = Frames.open(path, **kwargs)
    return block


def save_dart(folder: Path, smallest: int, largest: int, seed: int = 0, notes: dict | None = None, **arguments) -> Path:
    """Save an untrained DART whose domain is gallium clusters of two sizes and all between, and return the folder."""
    torch.manual_seed(seed)
    model = DART(**arguments)
    model.domain.fit(torch.full((smallest + largest,), 31), torch.tensor([0, smallest, smallest + largest]))
    save_model(model, folder, notes)
    return folder


def atoms_of(z: Tensor, pos: Tensor, ptr: Tensor) -> list[Atoms]:
    """Convert clusters in flat tensors to ASE ``Atoms``."""
    return [Atoms(z[a:b].numpy(), pos[a:b].double().numpy()) for a, b in zip(ptr, ptr[1:], strict=False)]


def bonded_clusters(per_segment: int) -> list[Atoms]:
    """60 small clusters; their energy is that of the bonds, -0.3 eV for each pair closer than 3.49 Å."""
    generator = torch.Generator().manual_seed(5)
    sizes = tuple(torch.randint(5, 12, (60,), generator=generator).tolist())
    clusters = atoms_of(*random_clusters(sizes, 31, generator))
    for number, atoms in enumerate(clusters):
        bonds = (atoms.get_all_distances()[np.triu_indices(len(atoms), 1)] < 3.49).sum()
        atoms.info = {"binding": -0.3 * float(bonds), "segment": f"s{number // per_segment}"}
    return clusters
