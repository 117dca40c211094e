"""Screening: candidates for DFT calculations among the frames of trajectories."""
