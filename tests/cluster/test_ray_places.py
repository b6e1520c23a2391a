"""Actors are where the recipe says, on nodes with the GPUs and other resources that it asks for;
what no node has is one sentence."""

import asyncio
import logging
import os
import sys

import pytest
from fakes import policy_context

from benchmarks.scale import ready
from rro.cluster.connection import connect
from rro.config import RayConfig, parse_config
from rro.environments.base import Environment, TaskList
from rro.environments.coroutines import settled
from rro.environments.registry import open_environment
from rro.errors import RroError
from rro.policies.ray.policy import RayPolicy
from rro.policies.scripted import ScriptedPolicy
from rro.types import Message, SamplingParams, StepResult, Task

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nodes():
    """A cluster of a node with two (logical) GPUs and one without; the ids of both."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80_000_000}
    head = {"num_cpus": 0, "include_dashboard": False, **small}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    with_gpus = cluster.add_node(num_cpus=2, num_gpus=2, **small)
    without = cluster.add_node(num_cpus=2, resources={"java": 1}, **small)
    connect(RayConfig(address=cluster.address))
    yield with_gpus.node_id, without.node_id
    ray.shutdown()
    cluster.shutdown()


def place():
    """This process's node, and the GPUs that it sees."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    return f"{node} {os.environ.get('CUDA_VISIBLE_DEVICES')}"


def open_place(context):
    """A policy that says where it is."""
    return ScriptedPolicy(lambda messages, rng: place(), context.name)


class Places(Environment):
    """An environment that says where it is."""

    def reset(self, task, seed=0):
        return [Message("user", place())]

    def step(self, action):
        return StepResult("", 0.0, True)


def open_places():
    return TaskList("places", Places, {"train": [Task("0")]}, max_steps=1)


def policy_of(replicas, **ray):
    section = {"replicas": replicas, "placement": "ray", "ray": ray}
    section["backend"] = "cluster.test_ray_places:open_place"
    return RayPolicy(policy_context(parse_config({"policy": section}, "r"), None, "t/x", None))


def said(policy):
    """What each replica says."""

    async def ask():
        params = SamplingParams()
        return [
            (await replica.sample([Message("user", "where?")], 1, params, 0))[0].message.content
            for replica in policy.replicas
        ]

    try:
        return asyncio.run(ask())
    finally:
        asyncio.run(policy.close())


def environment(**ray):
    section = {"name": "cluster.test_ray_places:open_places", "placement": "ray", "ray": ray}
    return open_environment(parse_config({"environment": section}, "r").environment)


def test_replicas_are_on_the_node_with_gpus_and_each_sees_its_own(nodes, caplog):
    """Three are asked for, and there are two GPUs."""
    policy = ready(policy_of(3, num_gpus=1, num_cpus=0.5), 2)
    assert "there is room for 2 of 3 (0.5 CPU, 1 GPU each)" in caplog.text
    assert sorted(said(policy)) == [f"{nodes[0]} 0", f"{nodes[0]} 1"]


def test_actors_look_for_modules_in_the_same_order(nodes):
    import ray

    found = ray.get(ray.remote(lambda: sys.path).options(num_cpus=0).remote())
    here = [path for path in dict.fromkeys(sys.path) if path not in ("", os.getcwd())]
    assert [path for path in dict.fromkeys(found) if path in here] == here


def test_an_environment_is_on_the_node_with_its_resource(nodes):
    there = environment(resources={"java": 1}).make()
    (opening,) = settled(there.reset(Task("0")))
    assert opening.content.split()[0] == nodes[1]
    settled(there.close())


def test_what_no_node_has_is_one_sentence(nodes, caplog):
    caplog.set_level(logging.WARNING, "rro")
    lacking = r"no node has all that each needs, 1 CPU, 2 GPU, 1 java \(the most on one node: 2 CPU"
    asked = {"num_gpus": 2, "resources": {"java": 1}, "patience": 1}
    with pytest.raises(RroError, match=f"none of 1 replicas.* could start for 1 s: {lacking}"):
        policy_of(1, **asked)
    with pytest.raises(RroError, match=f"none of 1 actors for places could start.* {lacking}"):
        environment(**asked).make()
    assert caplog.text.count("waiting 1 s for one that has") == 2
