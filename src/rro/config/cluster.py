"""The settings of actors on a Ray cluster, which the sections of a policy and of an environment
have. Knows nothing of Ray but what it can be asked for."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from rro.config.tables import Section

# What Ray asks for in other ways than by `resources`.
_RAYS_OWN = frozenset({"CPU", "GPU", "memory", "object_store_memory"})


def _part_or_whole(amount: float, name: str = "") -> float:
    """Ray counts in ten-thousandths, and gives nothing above one in parts."""
    if amount < 0 or 0 < amount < 1e-4 or (amount > 1 and not amount.is_integer()):
        raise ValueError(f"{name}must be 0, a part of at least 0.0001, or whole, not {amount:g}")
    return amount


class RayConfig(Section):
    """Actors on a Ray cluster, and what each of them is given."""

    address: str | None = None
    """Address of the cluster; `auto` is the one that this machine belongs to. Default: the
    environment variable RAY_ADDRESS, or else a cluster on this machine for the time of the run."""
    num_cpus: float = Field(1.0, ge=0)
    """CPUs of each actor."""
    num_gpus: float = Field(0.0, ge=0)
    """GPUs of each actor. It sees no other."""
    resources: dict[str, float] = Field(default_factory=dict)
    """What else each actor needs of its node, by the names that the cluster has for it."""
    runtime_env: dict[str, Any] = Field(default_factory=dict)
    """The environment of the actors' processes, as Ray's runtime_env: packages, variables, files of
    code."""
    patience: float = Field(600.0, gt=0)
    """Seconds without any actor after which the run ends, to be resumed."""

    @field_validator("num_cpus", "num_gpus")
    @classmethod
    def _amount(cls, given: float) -> float:
        return _part_or_whole(given)

    @field_validator("resources")
    @classmethod
    def _amounts(cls, given: dict[str, float]) -> dict[str, float]:
        for name, amount in given.items():
            if name in _RAYS_OWN:
                raise ValueError(f"{name} has no place here: see num_cpus and num_gpus")
            _part_or_whole(amount, f"{name} ")
        return given


class PolicyRayConfig(RayConfig):
    """Replicas of a policy as actors on a Ray cluster."""

    weights: Literal["object_store", "shared_folder"] = "object_store"
    """How a round's weights reach the replicas: through the cluster's memory, or from the run
    folder, which all nodes then see under the same path."""
