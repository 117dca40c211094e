"""Connection to a Ray cluster."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyg_clusters.errors import InputError, MissingExtra, one_line
from pyg_clusters.stopping import keeping_handlers

ANSWER_WITHIN: float = 10.0  # seconds within which a cluster must respond
LOST_AT_MOST: int = 5  # number of workers that may be lost in succession without any result in between


@contextmanager
def ray_cluster(address: str | None) -> Iterator[Any]:
    """Connect to a Ray cluster and yield the module ``ray``; an existing connection is reused and left open.

    Args:
        address: ``host:port`` or ``auto``; by default ``RAY_ADDRESS`` if set, or else a new cluster on this machine.

    Raises:
        MissingExtra: If Ray is not installed.
        InputError: If there is no such cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtra("ray", "ray", "the engine ray") from error
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, address)
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


def _connect(ray: Any, address: str | None):
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    advice = "give the host:port that ray start --head printed"
    host, _, port = address.rpartition(":")
    try:
        if port.isdigit() and "/" not in host:  # Ray itself waits for minutes if there is no response
            socket.create_connection((host, int(port)), timeout=ANSWER_WITHIN).close()
        with keeping_handlers():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"--address {address}: no Ray cluster there ({one_line(error)}); {advice}") from error
