"""Errors and intervals of trained models."""
