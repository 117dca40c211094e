"""Frames: reading in blocks, checking, writing."""

from pyg_clusters.frames.block import BadFrame, FrameBlock
from pyg_clusters.frames.checks import ExtrapolationWarning, check_block
from pyg_clusters.frames.reading import read_blocks
from pyg_clusters.frames.writing import write_extxyz, write_table

__all__ = [
    "BadFrame",
    "ExtrapolationWarning",
    "FrameBlock",
    "check_block",
    "read_blocks",
    "write_extxyz",
    "write_table",
]
