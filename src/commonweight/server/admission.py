"""Admission of requests: API keys, their scopes and rate limits, as dependencies of routes."""

from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi import Request

from commonweight.access import Admission, Keyring, Limiter, Scope
from commonweight.access.limits import LimitKind

Dependency = Callable[[Request], Awaitable[None]]


def require_key(keyring: Keyring) -> Dependency:
    """Require a valid key; its principal becomes ``request.state.principal``."""

    async def check(request: Request) -> None:
        request.state.principal = await keyring.authenticate(request.headers)

    return check


def require_scope(scope: Scope) -> Dependency:
    """Require a scope of the key."""

    async def check(request: Request) -> None:
        request.state.principal.require(scope)

    return check


def admit_request(limiter: Limiter, kind: LimitKind = "requests") -> Callable[[Request], AsyncIterator[Admission]]:
    """Admit a request within its key's limits, until the response is sent; adds the headers of rate limits."""

    async def admit(request: Request) -> AsyncIterator[Admission]:
        state = request.state
        state.limits = {}  # which RequestMiddleware adds to the headers
        async with limiter.admit(state.principal, state.request_id, state.limits, kind) as admission:
            yield admission

    return admit
