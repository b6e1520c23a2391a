"""A server for each test."""

import pytest
from served import client_of, echo

from rro.policies.scripted import ScriptedPolicy
from rro.serving.server import PolicyServer


@pytest.fixture
def served():
    """Starts servers and gives clients of theirs."""
    servers = []

    def start(script=echo, name="", **options):
        server = PolicyServer(ScriptedPolicy(script, "run/sft"), **options).__enter__()
        servers.append(server)
        return server, client_of(server, name)

    yield start
    for server in servers:
        server.__exit__(None, None, None)
