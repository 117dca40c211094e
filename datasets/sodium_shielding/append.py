"""Merge labelled frames into the files of this data set.

    python datasets/sodium_shielding/append.py NEW.extxyz [MORE.extxyz ...]

The frames come from ``pyg-clusters label shielding``, or from an earlier labelling script, which wrote energies in
Hartree; the files of the data set are in eV and centred. A cluster is identified by size, family and seed. Known
clusters are skipped, so that a growing file can be merged repeatedly, as are copies of known relaxed clusters, because
many relaxations end in the same minimum; a truncated last frame is ignored. Clusters with an unstable closed-shell
solution are in a separate file, as are those of more than 22 atoms, so that errors on the smaller ones stay comparable.
The frame counts and checksums in ``card.yaml`` are updated. The README in this folder explains how to compute more
frames.

Each file is replaced atomically. If the script is interrupted between two files, the checksums do not match: run it
again.
"""

import argparse
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase.io.extxyz import key_val_str_to_dict

from pyg_clusters.errors import InputError
from pyg_clusters.files import atomic_write
from pyg_clusters.shipped import Card, sha256_of
from pyg_clusters.structures.duplicates import copies

HERE = Path(__file__).resolve().parent
STABLE, LARGE = "sodium_shielding.extxyz", "sodium_shielding_large.extxyz"
UNSTABLE = "sodium_shielding_unstable.extxyz"

LARGEST_OF_STABLE = 22
"""Maximum number of atoms in the file of the stable clusters."""

HARTREE = 27.211386245988
"""In eV (CODATA 2018)."""

COLUMNS = "species:S:1:pos:R:3:nmr_shielding:R:1:nmr_tensor:R:9:gop:R:19"
POPULATIONS = "1S 2S 2PX 2PY 2PZ 3S 3PX 3PY 3PZ 4S 4PX 4PY 4PZ 5DXX 5DYY 5DZZ 5DXY 5DXZ 5DYZ"
ELECTRONS = 11

RANDOM = "sblda"
"""Family of the random clusters."""

RELAXED = {"tblite_energy": "sblda_xtb", "gupta_energy": "sblda_gupta"}
"""Family of relaxed clusters by what ``pyg-clusters relax`` writes; the last relaxation counts."""


class Frame(NamedTuple):
    """Frame as text, with its key and stability."""

    key: tuple[int, str, int]
    stable: bool
    text: str

    @property
    def positions(self) -> np.ndarray:
        return positions_of(self.text.splitlines()[2:])


def append(sources: Sequence[Path], folder: Path = HERE) -> Counter:
    """Merge labelled frames into a folder of this data set.

    Returns:
        Number of frames added to each file.

    Raises:
        InputError: If a frame is not as the labeller writes it.
    """
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in (STABLE, LARGE, UNSTABLE)}
    present = [each for text in texts.values() for each in frames_of(text)]
    known = {(len(lines), str(header["family"]), int(header["seed"])) for header, lines in present}
    relaxed = [positions_of(lines) for header, lines in present if header["relaxed"]]
    added: Counter = Counter({STABLE: 0, LARGE: 0, UNSTABLE: 0})
    for source in sources:
        for number, (header, lines) in enumerate(frames_of(source.read_text(encoding="utf-8"))):
            try:
                frame = converted(header, lines)
            except (KeyError, ValueError) as error:
                raise InputError(f"{source}, frame {number}: {type(error).__name__}: {error}") from error
            if frame.key not in known and not is_copy(frame, relaxed):
                known.add(frame.key)
                relaxed += [frame.positions] if frame.key[1] != RANDOM else []
                name = UNSTABLE if not frame.stable else STABLE if frame.key[0] <= LARGEST_OF_STABLE else LARGE
                texts[name] += frame.text
                added[name] += 1
    for name, text in texts.items():
        if added[name]:
            with atomic_write(folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8", newline="\n")
    renew_card(folder, texts)
    return added


def frames_of(text: str) -> Iterator[tuple[dict, list[str]]]:
    """Yield the header of each complete frame, as values by key, and its lines of atoms."""
    lines = text.splitlines(keepends=True)
    start = 0
    while start < len(lines):
        end = start + 2 + int(lines[start])
        if end > len(lines) or not lines[end - 1].endswith("\n"):
            return
        yield key_val_str_to_dict(lines[start + 1].strip()), lines[start + 2 : end]
        start = end


def positions_of(lines: list[str]) -> np.ndarray:
    """Positions ``[num_atoms, 3]`` in Å."""
    return np.array([line.split()[1:4] for line in lines], dtype=float)


def is_copy(frame: Frame, relaxed: Sequence[np.ndarray]) -> bool:
    """Whether a frame is a relaxed cluster that is known, up to the convergence of the relaxation."""
    size, family, _ = frame.key
    same_size = [positions for positions in relaxed if len(positions) == size]
    if family == RANDOM or not same_size:
        return False
    known = np.full(size * len(same_size), 11), np.concatenate(same_size), size * np.arange(len(same_size) + 1)
    return bool(copies(np.full(size, 11), frame.positions, np.array([0, size]), known)[0] >= 0)


def converted(header: dict, lines: list[str]) -> Frame:
    """Frame with the units and names of this data set.

    Where no broken-symmetry solution was computed, as by the labeller that the set began with, <S^2> is zero for a
    closed shell that is stable against one, and not known for another.
    """
    by_command = "label_key" in header
    if by_command:
        header = of_command(header)
    for key, expected in (("energy_unit", "Hartree"), ("shielding_unit", "ppm"), ("gop_columns", POPULATIONS)):
        if _text(header[key]) != expected:
            raise ValueError(f"{key} must be {expected!r}, got {_text(header[key])!r}")
    rows = [line.split() for line in lines]
    if {row[0] for row in rows} != {"Na"} or {len(row) for row in rows} != {33}:
        raise ValueError("expected lines of Na and 32 numbers")
    values = np.array([row[1:] for row in rows], dtype=float)
    check_values(values)
    positions = values[:, :3] - values[:, :3].mean(axis=0)
    stable = bool(header["rks_stable"])
    size, family, seed = len(rows), str(header.get("family", RANDOM)), int(header["seed"])
    s2 = float(header["s2"]) if by_command and "s2" in header else 0.0 if stable else np.nan
    comment = (
        f"Properties={COLUMNS} energy={HARTREE * header['energy']:.6f} "
        f"lambda_triplet={HARTREE * header['lambda_t']:.6f} rks_stable={'T' if stable else 'F'} "
        f"s2={s2:.4f} homo_lumo_gap={HARTREE * header['gap']:.6f} seed={seed} selection={header['sel']} "
        f"family={family} relaxed={int(family != RANDOM)} "
        'pbc="F F F"'
    )
    atoms = [" ".join(["Na", *(f"{x:.6f}" for x in xyz), *row[4:]]) for xyz, row in zip(positions, rows, strict=True)]
    return Frame((size, family, seed), stable, "\n".join([str(size), comment, *atoms]) + "\n")


def of_command(header: dict) -> dict:
    """Header of ``pyg-clusters label shielding``, in eV, in the form of the earlier script.

    The ``family`` follows from the energy that ``relax`` wrote, the ``selection`` from the eigenvalue of ``label
    prescreen``.
    """
    family = next((name for key, name in RELAXED.items() if key in header), header.get("family", RANDOM))
    selection = "screened" if "valence_lambda_triplet" in header else "random"
    energies = {"energy": "energy", "lambda_triplet": "lambda_t", "homo_lumo_gap": "gap"}
    units = {"energy_unit": "Hartree", "shielding_unit": "ppm"}
    return {
        **header,
        **units,
        "sel": header.get("selection", selection),
        "family": family,
        **{name: header[key] / HARTREE for key, name in energies.items()},
    }


def check_values(values: np.ndarray):
    """Raise an error for values that contradict each other.

    Args:
        values: Positions, isotropic shielding, tensor and populations of each atom, ``[num_atoms, 32]``.
    """
    if not np.isfinite(values).all():
        raise ValueError("a value is not finite")
    trace = values[:, [4, 8, 12]].sum(axis=1) / 3
    if np.abs(trace - values[:, 3]).max() > 1e-3:
        raise ValueError("a shielding is not a third of the trace of its tensor")
    if abs(values[:, 13:].sum() - ELECTRONS * len(values)) > 1e-2:
        raise ValueError(f"populations add up to {values[:, 13:].sum():.4f} electrons, not {ELECTRONS * len(values)}")


def renew_card(folder: Path, texts: dict[str, str]):
    """Update checksum, frame count and sizes of each file in the card."""
    card = (folder / "card.yaml").read_text(encoding="utf-8")
    for name, text in texts.items():
        sizes = Counter(len(lines) for _, lines in frames_of(text))
        listed = ", ".join(f"{size}: {count}" for size, count in sorted(sizes.items()))
        entry = f"sha256: {sha256_of(folder / name)}\n    frames: {sizes.total()}\n    sizes: {{{listed}}}\n"
        pattern = rf"(  {re.escape(name)}:\n    )sha256: .*\n    frames: .*\n    sizes: .*\n"
        card, found = re.subn(pattern, rf"\g<1>{entry}", card)
        if found != 1:
            raise InputError(f"{folder / 'card.yaml'}: no entry of sha256, frames and sizes for {name}")
    with atomic_write(folder / "card.yaml") as temporary:
        temporary.write_text(card, encoding="utf-8")
        Card.load(temporary)


def _text(value: object) -> str:
    """Text of a header value, which ASE reads as an array if it has several words."""
    return " ".join(map(str, value)) if isinstance(value, (list, np.ndarray)) else str(value)


def main():
    """Merge the files given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=Path, help="extended XYZ files of the labeller")
    try:
        for name, count in append(parser.parse_args().sources).items():
            print(f"{name}: {count} added")
    except (InputError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
