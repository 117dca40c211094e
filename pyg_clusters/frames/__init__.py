"""Read, check, join, store and write frames."""

from pyg_clusters.frames.atoms import FORCE, AtomsFrame, good_frames, read_atoms, to_atoms, to_data
from pyg_clusters.frames.block import BadFrame, FrameBlock
from pyg_clusters.frames.by_format import Shard
from pyg_clusters.frames.checks import ExtrapolationWarning, check_block
from pyg_clusters.frames.join import join_atoms
from pyg_clusters.frames.paths import expand_paths
from pyg_clusters.frames.reader import Frames, read_blocks
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
