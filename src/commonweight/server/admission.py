"""Who may come in: keys, what they are for, and their limits, as dependencies of routes."""

from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi import Request

from commonweight.access import Admission, Keyring, Limiter, Scope
from commonweight.access.limits import LimitKind

Dependency = Callable[[Request], Awaitable[None]]


def require_key(keyring: Keyring) -> Dependency:
    """The request shows a good key. Whose it is becomes ``request.state.principal``."""

    async def check(request: Request) -> None:
        request.state.principal = await keyring.authenticate(request.headers)

    return check


def require_scope(scope: Scope) -> Dependency:
    """The key is good for this."""

    async def check(request: Request) -> None:
        request.state.principal.require(scope)

    return check


def admit_request(limiter: Limiter, kind: LimitKind = "requests") -> Callable[[Request], AsyncIterator[Admission]]:
    """A place within the key's limits, until the answer is sent. What is left of them goes with every answer."""

    async def admit(request: Request) -> AsyncIterator[Admission]:
        state = request.state
        state.limits = {}  # the envelope's, which it adds to the headers
        async with limiter.admit(state.principal, state.request_id, state.limits, kind) as admission:
            yield admission

    return admit
