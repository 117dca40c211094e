"""Read, check, join, store and write frames.

- Reading: ``reader`` reads files in blocks of arrays (``block``) with the reader of their format: ``xyz_reader`` (with
  ``xyz_frame``, ``xyz_comment`` and the lines of ``text``), ``lammps``, ``xdatcar``, ``mdanalysis_reader``,
  ``store_reader`` or ``ase_reader`` (with the checks of ``ase_formats``). ``paths`` expands paths, opens compressed
  files and recognises formats.
- Joining and checking: ``join`` joins clusters across the faces of cells (``periodic_bonds``); ``checks`` finds invalid
  frames and values; ``electronic_state`` and ``energy_units`` read what frames state about charge, spin and
  units.
- ASE objects: ``atoms`` reads and joins ASE objects, and converts them to PyG graphs and back.
- Writing: ``writing`` writes extended XYZ and tables; ``store_writer`` writes frame stores (``store_layout``);
  ``provenance`` names the added values; ``resume`` keeps the results of unfinished jobs.
"""

from pyg_clusters.frames.atoms import FORCE, AtomsFrame, good_frames, join_atoms, read_atoms, to_atoms, to_data
from pyg_clusters.frames.block import BadFrame, FrameBlock
from pyg_clusters.frames.checks import ExtrapolationWarning, check_block
from pyg_clusters.frames.paths import expand_paths
from pyg_clusters.frames.reader import Frames, Shard, read_blocks
from pyg_clusters.frames.resume import FrameLog, Parts
from pyg_clusters.frames.store_reader import StoreReader
from pyg_clusters.frames.store_writer import convert, write_store
from pyg_clusters.frames.writing import write_extxyz, write_table

__all__ = [
    "FORCE",
    "AtomsFrame",
    "BadFrame",
    "ExtrapolationWarning",
    "FrameBlock",
    "FrameLog",
    "Frames",
    "Parts",
    "Shard",
    "StoreReader",
    "check_block",
    "convert",
    "expand_paths",
    "good_frames",
    "join_atoms",
    "read_atoms",
    "read_blocks",
    "to_atoms",
    "to_data",
    "write_extxyz",
    "write_store",
    "write_table",
]
