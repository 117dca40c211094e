"""Writer of frame stores (frames as flat arrays in one HDF5 file), and conversion from any format."""

from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path

import h5py
import numpy as np

from pyg_clusters.errors import InputError
from pyg_clusters.files import atomic_write
from pyg_clusters.frames.block import KINDS, BadFrame, FrameBlock, kind_of
from pyg_clusters.frames.checks import check_block
from pyg_clusters.frames.energy_units import check_stated_force_unit, stated_units
from pyg_clusters.frames.join import as_clusters
from pyg_clusters.frames.paths import STORE_SUFFIXES, is_store
from pyg_clusters.frames.reader import Frames
from pyg_clusters.frames.store_layout import FORMAT, VERSION, new_hdf5
from pyg_clusters.frames.writing import WrittenFrames, open_output
from pyg_clusters.options.frames import ConvertOptions
from pyg_clusters.positions import centred
from pyg_clusters.terminal import counting
from pyg_clusters.units import ENERGY_UNITS, force_unit_in_name, unit_in_name

CHUNK: int = 1 << 14
"""Number of rows (atoms or frames) in a chunk."""

COMPRESSION: Mapping[str, object] = {"compression": "gzip", "compression_opts": 1, "shuffle": True}

UNITS: tuple[tuple[str, str], ...] = (("energy", "eV"), ("forces", "eV/Å"), ("nmr_shielding", "ppm"))
"""Ends of the names of labels, and the units of such labels."""


def write_store(
    path: str | PathLike,
    blocks: Iterable[FrameBlock],
    *,
    single: bool = False,
    compressed: bool = True,
    energy_unit: str | Mapping[str, str] = "eV",
) -> int:
    """Write frames to an HDF5 store, with one block of frames in memory at a time.

    The file holds:

    - ``ptr [num_frames + 1]``, offsets of the frames; ``z [num_atoms]``; and ``pos [num_atoms, 3]`` in Å, where frames
      are joined across the faces of their cells, as the attribute ``joined`` states;
    - from the original files, ``cell [num_frames, 3, 3]`` in Å, ``pbc [num_frames, 3]``, ``charge [num_frames]`` in e,
      and ``unpaired [num_frames]``, the number of unpaired electrons, which is -1 if not stated;
    - the labels of the blocks in the groups ``properties`` (``[num_frames, ...]``) and ``atom_properties``
      (``[num_atoms, ...]``), with their ``units`` if known;
    - in the group ``origin``, the source of each frame: index ``number [num_frames]`` in the file
      ``files[file[frame]]``.

    A label has the same kind in all frames. Numbers are stored in double precision (integers that would be rounded are
    refused), texts as texts, and booleans as booleans.

    Args:
        path: The file, ``.h5`` or ``.hdf5``, which appears only when it is complete.
        blocks: The frames, all with the same labels.
        single: Store the positions in single precision, relative to their mean over the frame. This takes about half
            the space, and rounds to 1e-6 Å (up to 32 Å from the mean).
        compressed: Whether to compress with gzip. Reading single frames in any order, as in training from disk, is many
            times slower from a compressed store, since a whole chunk is unpacked for each frame.
        energy_unit: Unit of the energies among the labels and of the energy in forces, which the store states; or units
            of labels by name, if the others are in eV.

    Returns:
        The number of frames.

    Raises:
        InputError: If the file cannot be written, there are no frames, or a label cannot be stored; the message names
            file and frame.

    Example:
        >>> import tempfile
        >>> from ase import Atoms
        >>> from pyg_clusters.frames import Frames, write_extxyz
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_extxyz(folder / "md.xyz", [Atoms("Na2", [[0, 0, 0], [0, 0, d]]) for d in (3.0, 3.1, 3.2)])
        >>> write_store(folder / "md.h5", Frames.open(folder / "md.xyz"))
        3
        >>> with h5py.File(folder / "md.h5") as file:
        ...     [float(z) for z in file["pos"][1::2, 2]]
        [3.0, 3.1, 3.2]
    """
    path = Path(path)
    if not is_store(path):
        raise InputError(f"{path}: the name of a frame store must end in {' or '.join(STORE_SUFFIXES)}; rename it")
    with atomic_write(path) as temporary, new_hdf5(temporary) as (file, check):
        writer = _Writer(file, single, COMPRESSION if compressed else {}, energy_unit)
        for block in map(as_clusters, blocks):
            if block.unreadable:
                raise block.unreadable[0].error
            writer.append(block)
            check()
        if not writer.num_frames:
            raise InputError(f"{path}: no frames to write")
        writer.finish()
    return writer.num_frames


class _Writer:
    """Writer of blocks to an open file."""

    def __init__(
        self, file: h5py.File, single: bool, compression: Mapping[str, object], energy_unit: str | Mapping[str, str]
    ):
        self.file = file
        self.compression = compression
        self.energy_unit, self.units = (energy_unit, {}) if isinstance(energy_unit, str) else ("eV", energy_unit)
        self.num_frames = self.num_atoms = 0
        self.files: dict[str, int] = {}
        self.kinds: dict[str, str] = {}  # of each label
        self.waiting: dict[str, list[np.ndarray]] = {}
        file.attrs.update({"format": FORMAT, "version": VERSION, "length_unit": "Å", "joined": True})
        file.attrs["energy_unit"] = self.energy_unit
        self._new("ptr", np.zeros(1, dtype=np.int64))
        self._new("pos", np.zeros((0, 3), dtype=np.float32 if single else np.float64)).attrs["units"] = "Å"
        self._new("z", np.zeros(0, dtype=np.uint8))

    def append(self, block: FrameBlock):
        if not len(block):
            return
        if (empty := np.flatnonzero(block.sizes == 0)).size:
            raise InputError(f"{block.file}, frame {block.number[empty[0]]}: has no atoms; remove it")
        files, numbers = block.origins
        indices = [self.files.setdefault(str(file), len(self.files)) for file in files]
        of_frames = {
            "ptr": self.num_atoms + block.ptr[1:],
            "cell": block.cell,
            "pbc": block.pbc,
            **_states(block),
            "origin/file": np.array(indices, dtype=np.int32),
            "origin/number": numbers,
        }
        pos = centred(block.pos, block.ptr) if self.file["pos"].dtype == np.float32 else block.pos
        of_atoms = {"z": block.z.astype(np.uint8), "pos": pos}
        labels = {f"properties/{key}": values for key, values in block.properties.items()}
        labels |= {f"atom_properties/{key}": values for key, values in block.atom_properties.items()}
        self._check_names(block, labels)
        for name, values in labels.items():
            labels[name] = self._storable(block, name, values)
        for name, values in (of_frames | of_atoms | labels).items():
            if name not in self.file:
                self._new(name, values[:0])
            self.waiting.setdefault(name, []).append(values)
        self.num_frames += len(block)
        self.num_atoms += len(block.z)
        if sum(map(len, self.waiting["z"])) >= CHUNK:
            self._flush()

    def finish(self):
        """Write the remaining values and the names of the original files."""
        self._flush()
        self.file.create_dataset("origin/files", data=list(self.files), dtype=h5py.string_dtype())

    def _check_names(self, block: FrameBlock, labels: Mapping[str, np.ndarray]):
        names = dict.fromkeys(labels, "") if not self.num_frames else self.kinds
        if odd := sorted(names.keys() ^ labels.keys()):
            has = "has" if odd[0] in labels else "has no"
            raise InputError(
                f"{block.file}, frame {block.number[0]}: {has} label {odd[0].rpartition('/')[2]!r}, unlike the frames "
                "before it; all frames of a store must have the same labels"
            )
        self.kinds = names

    def _storable(self, block: FrameBlock, name: str, values: np.ndarray) -> np.ndarray:
        """Values as they are stored, checked to be of the same kind as before and not to be rounded."""
        key = name.rpartition("/")[2]
        frames = block.number[block.frame_of_atom] if name.startswith("atom_properties") else block.number

        def refused(row: int, reason: str) -> InputError:
            return InputError(
                f"{block.file}, frame {frames[row]}: {key!r} is {np.asarray(values[row]).tolist()!r}, {reason}"
            )

        kind = self.kinds[name]
        kinds = [kind_of(value) for value in values] if values.dtype == object else [kind_of(values)]
        for row, found in enumerate(kinds):
            kind = kind or found
            if found not in KINDS.values():
                raise refused(row, "neither a number nor a text: it cannot be stored, leave it out")
            if found != kind:
                raise refused(row, f"{found}, but {kind} in the frames before it: convert it, or leave it out")
        self.kinds[name] = kind
        shape = self.file[name].shape[1:] if name in self.file else np.shape(values[0])
        shapes = map(np.shape, values) if values.dtype == object else [values.shape[1:]]
        if (odd := next((row for row, found in enumerate(shapes) if found != shape), None)) is not None:
            raise refused(odd, f"which differs in shape from {shape} in the frames before it")
        if kind == KINDS["U"]:
            if (wrong := next((row for row, value in enumerate(values.flat) if "\0" in value), None)) is not None:
                raise refused(wrong * len(values) // values.size, "which contains a zero byte: remove that byte")
            return values.astype(object)
        if kind != KINDS["f"]:
            return values.astype(bool)
        if values.dtype.kind != "f":  # Python compares integers with floats exactly
            rows = (np.asarray(value).ravel().tolist() for value in values)
            rounded = next((row for row, found in enumerate(rows) if any(v != float(v) for v in found)), None)
            if rounded is not None:
                raise refused(rounded, "which double precision would round: convert it to a text, or leave it out")
        return values.astype(np.float64)

    def _flush(self):
        """Write the waiting values together, so that many small blocks are written as fast as a large one."""
        for name, parts in self.waiting.items():
            values = np.concatenate(parts)
            dataset = self.file[name]
            start = len(dataset)
            dataset.resize(start + len(values), axis=0)
            dataset[start:] = values
        self.waiting.clear()

    def _new(self, name: str, values: np.ndarray) -> h5py.Dataset:
        text = values.dtype.kind == "O"
        dataset = self.file.create_dataset(
            name,
            shape=values.shape,
            dtype=h5py.string_dtype() if text else values.dtype,
            maxshape=(None, *values.shape[1:]),
            chunks=(max(1, CHUNK // max(1, int(np.prod(values.shape[1:])) // 3)), *values.shape[1:]),
            **self.compression,
        )
        if len(values):
            dataset[:] = values
        unit = next((unit.replace("eV", self.energy_unit) for end, unit in UNITS if name.endswith(end)), None)
        if unit := self.units.get(name.removeprefix("properties/"), unit):
            dataset.attrs["units"] = unit
        return dataset


def _states(block: FrameBlock) -> dict[str, np.ndarray]:
    """Charge and number of unpaired electrons (-1 if not stated) of each frame, as they are stored."""
    columns = np.tile(np.array([[0], [-1]], dtype=np.int32), len(block))
    for frame, state in enumerate(block.stated):
        if isinstance(state, str):
            raise InputError(f"{block.file}, frame {block.number[frame]}: {state}")
        if state is not None:
            columns[:, frame] = state.charge, -1 if state.unpaired is None else state.unpaired
    return dict(zip(("charge", "unpaired"), columns, strict=True))


def convert(options: ConvertOptions) -> WrittenFrames:
    """Convert frames in any format to a frame store.

    Raises:
        InputError: If a file cannot be used, with ``on_bad="stop"`` also if a frame cannot, or if the store exists
            already.
    """
    out, bad = Path(options.out), list[BadFrame]()

    def good(blocks: Frames) -> Iterator[FrameBlock]:
        for block in blocks:
            checked, rejected = check_block(block, on_bad=options.on_bad)
            bad.extend(rejected)
            yield checked

    with open_output(options):
        frames = Frames.open(
            options.frames,
            properties=options.properties,
            atom_properties=options.atom_properties,
            on_bad=options.on_bad,
            topology=options.topology,
            fragments=options.fragments,
        )
        blocks = counting(good(frames), len)
        compressed, units = not options.uncompressed, _energy_units(frames)
        count = write_store(out, blocks, single=options.single, compressed=compressed, energy_unit=units)
    return WrittenFrames(count, options.out, bad)


def _energy_units(frames: Frames) -> str | dict[str, str]:
    """Unit of all labels that the files state, which must be the same in all of them, or units by name of the label.

    Labels without a stated unit are in eV. Energies and forces with a unit in their name keep it there.
    """
    keys = [key for key in frames.options.properties if unit_in_name(key) is None]
    found: dict[str, tuple[str, Path]] = {}
    for path in frames.paths:
        for key, stated in stated_units(path, keys).items():
            name = "eV" if stated is None else stated.name
            other, first = found.setdefault(key, (name, path))
            if ENERGY_UNITS[name] != ENERGY_UNITS[other]:
                raise InputError(
                    f"{path}: states energies in {name}, but {first} in {other}; convert them to two stores"
                )
    units = {key: name for key, (name, _) in found.items()}
    common = next(iter(units.values()), "eV") if len(set(units.values())) < 2 else None
    for key in frames.options.atom_properties:
        if "force" in key.lower() and force_unit_in_name(key) is None:
            for path in frames.paths:
                check_stated_force_unit(path, key, ENERGY_UNITS[common or "eV"])
    return common or {key: name for key, name in units.items() if name != "eV"}
