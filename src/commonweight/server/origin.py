"""Origin checks and CORS: which web pages may use a server that needs no key.

Whoever sits at this machine may use it, and so could every page in their browser. A page of some other origin can
send requests that need no permission, and a page whose name suddenly means 127.0.0.1 (DNS rebinding) can read the
answers, too. Browsers tell both: by ``Origin``, and by ``Host``, which is the name that the page was loaded under.
No page knows a key, so servers with keys may be called whatever their operators like.
"""

import contextlib
import ipaddress
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from commonweight.access import Keyring
from commonweight.messages.errors import PermissionDeniedError
from commonweight.server.middleware import make_error_response
from commonweight.store.failures import FAILURES


class OriginMiddleware:
    """ASGI middleware that refuses web pages of origins other than the server's own and the allowed ones."""

    def __init__(self, app: ASGIApp, keyring: Keyring, origins: Sequence[str]) -> None:
        self._app = app
        self._keyring = keyring
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            problem = self._find_problem(headers.get("host"), headers.get("origin"))
            if problem and not await self._needs_key():
                await make_error_response(PermissionDeniedError(problem), scope["state"]["request_id"])(
                    scope, receive, send
                )
                return
        await self._app(scope, receive, send)

    async def _needs_key(self) -> bool:
        with contextlib.suppress(*FAILURES):  # who cannot be told apart is turned away
            return await self._keyring.needs_key()
        return False

    def _find_problem(self, host: str | None, origin: str | None) -> str | None:
        # Browsers always name a host; some probes do not.
        if host is not None and not _is_loopback(host):
            return f"host: {host!r} does not mean this machine; a server without keys answers to nothing else"
        is_own = origin is None or origin.partition("://")[2] == host
        if not is_own and origin not in self._origins:
            return f"origin: web pages of {origin!r} may not use this server; `serve --cors-origin` would let them"
        return None


def _is_loopback(host: str) -> bool:
    """Whether an authority, with or without a port, is this machine in every browser."""
    name = host[1 : host.find("]")] if host.startswith("[") else host.partition(":")[0]
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        # Names below localhost never leave the machine (RFC 6761, section 6.3).
        return f".{name.lower()}".endswith(".localhost")
