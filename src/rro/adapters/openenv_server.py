"""Any benchmark as an OpenEnv server: what `rro serve-env` runs.

Each WebSocket connection is a session with an environment of its own. Snapshots are an extension:
who does not ask for them sees a plain OpenEnv server. Knows no benchmark."""

from __future__ import annotations

import ipaddress
import socket
from functools import partial
from typing import Any

from rro.adapters.parts import required
from rro.adapters.served_episodes import Snapshots
from rro.environments.base import Benchmark
from rro.errors import UsageError

# A message of a client; bytes.
_LONGEST_MESSAGE = 1 << 20


def make_app(benchmark: Benchmark, sessions: int, idle: float, snapshots: int) -> Any:
    """The ASGI application. `sessions` at once; one that is silent for `idle` seconds is ended; all
    keep at most `snapshots` snapshots. Raises UsageError where OpenEnv is missing."""
    server = required("openenv.core.env_server", "openenv")
    types = required("openenv.core.env_server.types", "openenv")
    from rro.adapters.openenv_served import Served, TextAction, TextObservation

    limits = types.ConcurrencyConfig(max_concurrent_envs=sessions, session_timeout=idle)
    made = partial(Served, benchmark, Snapshots(snapshots))
    name = benchmark.name
    app = server.create_fastapi_app(
        made, TextAction, TextObservation, concurrency_config=limits, env_name=name
    )
    app.add_exception_handler(UsageError, _refused)
    return app


def serve(
    benchmark: Benchmark,
    host: str = "127.0.0.1",
    port: int = 8000,
    sessions: int = 64,
    idle: float = 3600.0,
    snapshots: int = 100_000,
) -> None:
    """Serve a benchmark until the process is stopped; prints its address once it listens. Port 0:
    any free one. Raises UsageError where OpenEnv is missing or the address cannot be used."""
    app, uvicorn = make_app(benchmark, sessions, idle, snapshots), required("uvicorn", "openenv")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}, port {port}: {error.strerror}") from error
    if _is_loopback(host):
        hosts = required("starlette.middleware.trustedhost", "openenv")
        names = ["localhost", "127.0.0.1", "[::1]", "::1", host]
        app.add_middleware(hosts.TrustedHostMiddleware, allowed_hosts=names)
    shown = f"[{host}]" if ":" in host else host
    print(f"serving {benchmark.name} at http://{shown}:{listening.getsockname()[1]}", flush=True)
    config = uvicorn.Config(
        app,
        log_level="warning",
        ws_max_size=_LONGEST_MESSAGE,
        limit_concurrency=4 * sessions,
        timeout_graceful_shutdown=5,
    )
    uvicorn.Server(config).run(sockets=[listening])


def _refused(request: Any, error: Exception) -> Any:
    """The answer to a caller's mistake, such as a split that there is not."""
    responses = required("starlette.responses", "openenv")
    return responses.JSONResponse({"detail": str(error)}, status_code=400)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
