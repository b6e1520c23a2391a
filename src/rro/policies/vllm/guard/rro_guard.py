"""Runs inside vLLM's server, in whichever environment that is: nobody without the key may ask for
anything but whether it is up.

vLLM itself asks for the key only where a path begins with /v1, not for those by which weights are
replaced. Uses the standard library alone; its folder holds nothing else, as it is on the server's
module path."""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]


class RequireKey:
    """ASGI middleware: answers 401 to a request without the key in VLLM_API_KEY."""

    def __init__(self, app: App) -> None:
        self.app, self.expected = app, f"Bearer {os.environ['VLLM_API_KEY']}".encode()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http" and scope["path"] != "/health" and not self._has_key(scope):
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b"wrong key"})
            return
        await self.app(scope, receive, send)

    def _has_key(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, self.expected)
