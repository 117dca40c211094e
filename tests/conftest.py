"""Fixtures of all tests."""

import os

import pytest
import torch

os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded source of random numbers, fresh for each test."""
    return torch.Generator().manual_seed(0)
