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
from rro.errors import UsageError, describe

log = logging.getLogger(__name__)

# seconds for an answer about the nodes
_PATIENCE = 10.0
# Addresses of clusters that this process started, which no other node joins.
_started_here = set[str]()


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
    # by itself Ray hands on the working directory alone, and modules may be beside the recipe;
    # workers put each of these in front of those before it
    paths = [path for path in reversed(sys.path) if path]
    more["job_config"] = importlib.import_module("ray.job_config").JobConfig(
        _py_driver_sys_path=paths
    )
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **more)
    except Exception as error:
        # Ray raises Exception itself, where a machine is too busy to start it
        reason = describe(error).splitlines()[0]
        raise UsageError(f"no Ray cluster at {address}: {reason}") from None
    if address == "local":
        _started_here.add(_directory_address())
    return ray


def check_room(settings: RayConfig, what: str, count: int) -> None:
    """Log where the cluster has no room for `count` actors, called `what`. Raises UsageError where
    it has none at all for one of them and cannot grow, as this process started it."""
    room, lacking = _room(settings, count), shortage(settings)
    if lacking and _directory_address() in _started_here:
        raise UsageError(f"{what} cannot start: {lacking}; ask for less in the recipe")
    if lacking:
        log.warning("%s: %s; waiting %g s for one that has", what, lacking, settings.patience)
    elif room < count:
        each = _listed(_wanted(settings))
        log.warning("%s: there is room for %d of %d (%s each)", what, room, count, each)


def shortage(settings: RayConfig) -> str:
    """What an actor needs and no node has, as part of a sentence; empty where one has it."""
    if _room(settings, 1):
        return ""
    wanted, nodes = _wanted(settings), _nodes()
    most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in wanted}
    needed, there = _listed(wanted), _listed(most)
    return f"no node has all that each needs, {needed} (the most on one node: {there})"


def _room(settings: RayConfig, most: int) -> int:
    """How many actors all nodes have room for, up to `most`, whatever else runs there."""
    wanted = {name: amount for name, amount in _wanted(settings).items() if amount}

    def on(node: dict[str, float]) -> int:
        # as Ray does, in whole ten-thousandths
        each = (round(node.get(name, 0) * 1e4) // round(wanted[name] * 1e4) for name in wanted)
        return min(each, default=most)

    return min(most, sum(map(on, _nodes())))


def _wanted(settings: RayConfig) -> dict[str, float]:
    return {"CPU": settings.num_cpus, "GPU": settings.num_gpus, **settings.resources}


def _nodes() -> list[dict[str, float]]:
    """What each node has."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _listed(amounts: dict[str, float]) -> str:
    """As in: 1 CPU, 2 GPU, 1 a100."""
    return ", ".join(f"{amount:g} {name}" for name, amount in amounts.items())


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
        log.debug("no answer about draining nodes", exc_info=error)
        return set()


@functools.cache
def _directory_at(address: str) -> Any:
    # compiled, and its stub does not name the class
    return importlib.import_module("ray._raylet").GcsClient(address=address)


def _directory() -> Any:
    """The client of the cluster's directory of nodes."""
    return _directory_at(_directory_address())


def _directory_address() -> str:
    import ray

    address: str = ray.get_runtime_context().gcs_address
    return address
