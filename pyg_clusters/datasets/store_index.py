"""What is known of each frame of a store without its atoms, found in one pass and kept beside the store."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyg_clusters.datasets.block_labels import atom_numbers, finite, number_of_each_atom, numbers
from pyg_clusters.datasets.card import sha256_of
from pyg_clusters.errors import InputError
from pyg_clusters.files import replacing
from pyg_clusters.frames import FrameBlock, check_block, read_blocks
from pyg_clusters.frames.store import origin_of
from pyg_clusters.frames.wanted import Fragments


@dataclass(frozen=True)
class Labels:
    """What is asked of each frame of a store.

    Attributes:
        target: Name of the target.
        per_atom: Whether it is one per atom.
        group: Name of the value that tells groups of frames apart; ``None``: the file it was first read from.
        keep: Names of further values per frame.
        atom_arrays: Names of further arrays of atoms.
        fragments: What to do with a periodic frame that stays in several pieces.
    """

    target: str
    per_atom: bool = False
    group: str | None = None
    keep: tuple[str, ...] = ()
    atom_arrays: tuple[str, ...] = ()
    fragments: Fragments = "refuse"


@dataclass(frozen=True)
class StoreIndex:
    """Labels of the frames of a store, all of which can be used; some 20 bytes a frame.

    Attributes:
        checksum: SHA-256 of the store.
        elements: Atomic numbers that occur, ascending.
        target: Target of each frame in double precision ``[num_frames]``; none, if it is one per atom.
        group: Number of the group of each frame ``[num_frames]``.
        group_names: The groups by number, in the order of appearance.
        kept: Further values ``[num_frames]`` each.
    """

    checksum: str
    elements: list[int]
    target: np.ndarray | None
    group: np.ndarray
    group_names: list[str]
    kept: dict[str, np.ndarray]

    @classmethod
    def of(cls, store: Path, labels: Labels, file: Path) -> "StoreIndex":
        """The index in ``file``, which is made where it is missing, damaged, or that of an earlier state of the store.

        Raises:
            InputError: If the store cannot be read, a frame cannot be used, or a label is missing or not finite.
        """
        found = store.stat() if store.exists() else None
        state = [] if found is None else [found.st_size, found.st_mtime_ns]
        index = cls._load(file, state)
        if index is None:
            index = cls._build(store, labels)
            index._save(file, state)
        return index

    @classmethod
    def _build(cls, store: Path, labels: Labels) -> "StoreIndex":
        properties = [*labels.keep, *([labels.group] if labels.group else [])]
        atom_properties = list(labels.atom_arrays)
        (atom_properties if labels.per_atom else properties).append(labels.target)
        elements: set[int] = set()
        number_of_name: dict[str, int] = {}
        targets, groups = [], []
        kept: dict[str, list[np.ndarray]] = {key: [] for key in labels.keep}
        for block in read_blocks(
            store, properties=properties, atom_properties=atom_properties, fragments=labels.fragments
        ):
            if block.joined is not None and block.joined.any():
                frame = block.number[block.joined.argmax()]
                raise InputError(f"{store}, frame {frame}: is cut by the faces of its cell; convert the store again")
            check_block(block)
            elements.update(np.unique(block.z).tolist())
            if labels.per_atom:
                number_of_each_atom(block, labels.target)
            else:
                targets.append(_finite_numbers(block, labels.target))
            for key in labels.atom_arrays:
                atom_numbers(block, key)
            for key in labels.keep:
                kept[key].append(numbers(block, key).astype(np.float32))
            groups.append(_numbered(_groups_of(block, labels.group), number_of_name))
        return cls(
            checksum=sha256_of(store),
            elements=sorted(elements),
            target=None if labels.per_atom else np.concatenate(targets),
            group=np.concatenate(groups),
            group_names=list(number_of_name),
            kept={key: np.concatenate(values) for key, values in kept.items()},
        )

    def _save(self, file: Path, state: Sequence[int]):
        arrays: dict[str, Any] = {
            "state": np.array(state),
            "checksum": np.array(self.checksum),
            "elements": np.array(self.elements),
        }
        arrays |= {"group": self.group, "group_names": np.array(self.group_names)}
        arrays |= {} if self.target is None else {"target": self.target}
        arrays |= {f"kept_{key}": values for key, values in self.kept.items()}
        with replacing(file) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, **arrays)

    @classmethod
    def _load(cls, file: Path, state: Sequence[int]) -> "StoreIndex | None":
        try:
            with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                if arrays["state"].tolist() != list(state):
                    return None
                return cls(
                    checksum=str(arrays["checksum"]),
                    elements=arrays["elements"].tolist(),
                    target=arrays["target"] if "target" in arrays else None,
                    group=arrays["group"],
                    group_names=arrays["group_names"].tolist(),
                    kept={key.removeprefix("kept_"): arrays[key] for key in arrays if key.startswith("kept_")},
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None


def _finite_numbers(block: FrameBlock, key: str) -> np.ndarray:
    return finite(block, key, numbers(block, key))


def _groups_of(block: FrameBlock, key: str | None) -> np.ndarray:
    return (origin_of(block)[0] if key is None else block.properties[key]).astype(str)


def _numbered(names: np.ndarray, number_of_name: dict[str, int]) -> np.ndarray:
    """Number of each name, in the order of appearance; new ones are added."""
    return np.array([number_of_name.setdefault(name, len(number_of_name)) for name in names.tolist()], dtype=np.int32)
