"""Routes ``/health`` (liveness) and ``/ready`` (readiness). Neither needs a key.

Who restarts servers asks the first, which is quick and depends on nothing else. Who chooses among servers asks the
second: 503 while the engine starts again, the database does not answer, the disk takes nothing, or the server is
about to end.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from commonweight.server.lifecycle import Lifecycle
from commonweight.store.failures import get_reason
from commonweight.turn import Assistant

log = logging.getLogger(__name__)

CHECK_TIMEOUT_SECONDS = 2.0
"""Seconds that a probe may take. Those who ask have little more."""

HealthCheck = Callable[[], Awaitable[None]]
"""Raises unless all is well with what it looks at."""


def make_health_router(assistant: Assistant, lifecycle: Lifecycle, probes: Mapping[str, HealthCheck]) -> APIRouter:
    """Create both routes. ``probes``: readiness checks besides the engine's, by name."""
    router = APIRouter(include_in_schema=False)

    @router.api_route("/health", methods=["GET", "HEAD"])
    async def health() -> JSONResponse:
        living = "ok" if assistant.engine.is_ready else "starting"
        status = "stopping" if lifecycle.is_draining else living
        return JSONResponse({"status": status, "model": assistant.card.id})

    @router.api_route("/ready", methods=["GET", "HEAD"])
    async def ready() -> JSONResponse:
        checks = {name: await _run_check(name, probe) for name, probe in probes.items()}
        checks = {"engine": assistant.engine.is_ready, "accepting": not lifecycle.is_draining} | checks
        is_ready = all(checks.values())
        return JSONResponse(
            {"status": "ready" if is_ready else "not ready", "checks": checks},
            status_code=200 if is_ready else 503,
        )

    return router


async def _run_check(name: str, probe: HealthCheck) -> bool:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            await probe()
    except Exception as error:
        log.warning("not ready: %s (%s)", name, get_reason(error))
        return False
    return True
