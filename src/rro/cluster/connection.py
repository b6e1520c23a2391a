"""This process's connection to a Ray cluster, and what it tells of its nodes. The only place that
uses what Ray does not document. Ray is imported when it is needed."""

from __future__ import annotations

import functools
import importlib
import logging
import os
import sys
from typing import Any

from rro.config import RayConfig
from rro.errors import UsageError

# seconds for an answer about the nodes
_PATIENCE = 10.0


def connect(settings: RayConfig) -> Any:
    """The module `ray`, connected: to the cluster that this process is connected to already, to
    that of `settings.address` or of the environment variable RAY_ADDRESS, or else to a new one on
    this machine, which ends with this process. Raises UsageError where Ray is not installed or no
    cluster answers."""
    try:
        import ray
    except ImportError:
        raise UsageError('placement = "ray" needs Ray: pip install "rro[ray]"') from None
    if ray.is_initialized():
        return ray
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # without an address, Ray would join whatever cluster this machine ran last
    address = settings.address or os.environ.get("RAY_ADDRESS") or "local"
    more: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    # by itself Ray hands on the working directory alone, and modules may be beside the recipe
    paths = [path for path in sys.path if path]
    more["job_config"] = importlib.import_module("ray.job_config").JobConfig(
        _py_driver_sys_path=paths
    )
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **more)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"no Ray cluster at {address}: {reason}") from None
    return ray


def actor_options(settings: RayConfig) -> dict[str, Any]:
    """What Ray is to give to each actor. An actor that ends is not started again by Ray: its pool
    starts another, with the weights of that moment."""
    return {
        "num_cpus": settings.num_cpus,
        "num_gpus": settings.num_gpus,
        "resources": settings.resources,
        "runtime_env": settings.runtime_env or None,
        "scheduling_strategy": "SPREAD",
        "max_restarts": 0,
        "max_task_retries": 0,
    }


def leaving_nodes() -> set[str]:
    """The ids of the nodes that are being drained: nothing new is to begin there. Empty where the
    cluster does not answer."""
    try:
        return set(_directory().get_draining_nodes(timeout=_PATIENCE))
    except Exception as error:
        logging.getLogger(__name__).debug("no answer about draining nodes", exc_info=error)
        return set()


@functools.cache
def _directory_at(address: str) -> Any:
    # compiled, and its stub does not name the class
    return importlib.import_module("ray._raylet").GcsClient(address=address)


def _directory() -> Any:
    """The client of the cluster's directory of nodes."""
    import ray

    return _directory_at(ray.get_runtime_context().gcs_address)
