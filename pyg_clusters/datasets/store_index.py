"""Index of the labels of a frame store, built in one pass and saved beside the store."""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyg_clusters.datasets.label_reading import LabelReader, Labels
from pyg_clusters.errors import InputError
from pyg_clusters.files import atomic_write, file_fingerprint, waiting_lock
from pyg_clusters.frames import FrameBlock
from pyg_clusters.frames.checks import atom_numbers, group_labels, numbers, unrounded


@dataclass(frozen=True)
class StoreIndex:
    """Labels of the usable frames of a store, about 30 bytes per frame.

    Attributes:
        checksum: SHA-256 of the store.
        frames: Indices in the store of the usable frames ``[num_frames]``.
        elements: Atomic numbers that occur, ascending.
        target: Target of each frame in double precision ``[num_frames]``; ``None`` if it is per atom.
        group: Index of the group of each frame ``[num_frames]``.
        group_names: Names of the groups by index, in the order of appearance.
        kept: Further values ``[num_frames]`` each.
        skipped: Index and fault of each frame that was left out.
        atoms: Energy of an isolated atom by element symbol, from frames of one atom.
        electronic_state: Charge of all frames in e, and whether one of them is in a state other than the lowest spin.
    """

    checksum: str
    frames: np.ndarray
    elements: list[int]
    target: np.ndarray | None
    group: np.ndarray
    group_names: list[str]
    kept: dict[str, np.ndarray]
    skipped: list[tuple[int, str]]
    atoms: dict[str, float]
    electronic_state: tuple[int, bool]

    @classmethod
    def of(cls, store: Path, labels: Labels, reader: LabelReader, file: Path) -> "StoreIndex":
        """Load the index from ``file``, or build it if it is missing, damaged, or of another content of the store.

        The content is hashed again only if the store has been written to since.

        Raises:
            InputError: If the store cannot be read, a frame cannot be used, or a label is missing or not finite.
        """
        index = cls._load(file, _state_of(store))
        if index is not None:
            return index
        with waiting_lock(file):  # other processes use the result of the first
            state = _state_of(store)
            index = cls._load(file, state)
            if index is None:
                index = cls._load(file, None)
                if index is None or index.checksum != file_fingerprint(store):
                    index = cls._build(store, labels, reader)
                index._save(file, state)
        return index

    @classmethod
    def _build(cls, store: Path, labels: Labels, reader: LabelReader) -> "StoreIndex":
        elements: set[int] = set()
        number_of_name: dict[str, int] = {}
        frames: list[np.ndarray] = []
        targets, groups = [], []
        kept: dict[str, list[np.ndarray]] = {key: [] for key in labels.keep}
        for block in reader.blocks(store, labels):
            if block.joined is not None and block.joined.any():
                frame = block.number[block.joined.argmax()]
                raise InputError(f"{store}, frame {frame}: is cut by the faces of its cell; convert the store again")
            frames.append(block.number)
            elements.update(np.unique(block.z).tolist())
            if not labels.per_atom:
                targets.append(numbers(block, labels.target))
            for key in labels.atom_arrays:
                atom_numbers(block, key, single=False)
            for key in labels.keep:
                kept[key].append(numbers(block, key))
            groups.append(_numbered(_groups_of(block, labels.group), number_of_name))
        reader.check([store], len(frames))
        return cls(
            checksum=file_fingerprint(store),
            frames=np.concatenate(frames),
            elements=sorted(elements),
            target=None if labels.per_atom else np.concatenate(targets),
            group=np.concatenate(groups),
            group_names=list(number_of_name),
            kept={key: unrounded(values) for key, values in kept.items()},
            skipped=[(bad.number, bad.reason) for bad in reader.skipped],
            atoms={symbol: energy for symbol, (energy, _) in reader.atoms.items()},
            electronic_state=reader.state or (0, False),
        )

    def _save(self, file: Path, state: Sequence[int]):
        arrays: dict[str, Any] = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        others = {name: value for name, value in vars(self).items() if name != "kept" and name not in arrays}
        arrays |= {f"kept_{key}": values for key, values in self.kept.items()}
        with atomic_write(file) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, state=np.array(state), others=np.array(json.dumps(others)), **arrays)

    @classmethod
    def _load(cls, file: Path, state: Sequence[int] | None) -> "StoreIndex | None":
        """Index in a file, if it is valid and of a store in the given state; ``None`` for any state."""
        try:
            with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as content:
                if state is not None and content["state"].tolist() != list(state):
                    return None
                arrays = {name: content[name] for name in content if name not in ("state", "others")}
                others = json.loads(str(content["others"]))
            kept = {name: arrays.pop(name) for name in list(arrays) if name.startswith("kept_")}
            others["kept"] = {name.removeprefix("kept_"): values for name, values in kept.items()}
            others["skipped"] = [tuple(bad) for bad in others["skipped"]]
            others["electronic_state"] = tuple(others["electronic_state"])
            return cls(**arrays, **others)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None


def _state_of(store: Path) -> list[int]:
    """Size, inode and times of a file; a program that writes to it cannot reset the last one."""
    if not store.exists():
        return []
    found = store.stat()
    return [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]


def _groups_of(block: FrameBlock, key: str | None) -> np.ndarray:
    return block.origins[0].astype(str) if key is None else group_labels(block, key)


def _numbered(names: np.ndarray, number_of_name: dict[str, int]) -> np.ndarray:
    """Index of each name, in the order of appearance; new names are added."""
    return np.array([number_of_name.setdefault(name, len(number_of_name)) for name in names.tolist()], dtype=np.int32)
