"""The HTTP application: routes, middleware and exception handlers put together."""

from collections.abc import Mapping, Sequence

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from opentelemetry.trace import TracerProvider
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from commonweight import __version__
from commonweight.access import Keyring, Limiter
from commonweight.batches import BatchService
from commonweight.files import Library
from commonweight.messages.errors import InvalidRequestError
from commonweight.server.access_log import PROBE_PATHS, log_request
from commonweight.server.admission import require_key, require_scope
from commonweight.server.batches import make_batches_router
from commonweight.server.files import make_files_router
from commonweight.server.health import HealthCheck, make_health_router
from commonweight.server.lifecycle import Lifecycle
from commonweight.server.messages import UNHELD_HEADER, make_messages_router
from commonweight.server.metrics import MEDIA_TYPE, Metrics, format_metrics, make_state_registry
from commonweight.server.middleware import RequestMiddleware, make_exception_handlers
from commonweight.server.models import make_models_router
from commonweight.server.openapi import ERRORS, make_openapi
from commonweight.server.origin import OriginMiddleware
from commonweight.server.request_log import record_turn
from commonweight.server.tracing import make_turn_tracer
from commonweight.turn import Assistant, TurnListener

API_VERSIONS = frozenset({"2023-06-01", "2026-10-21"})
_EXPOSED_HEADERS = (
    *("request-id", "retry-after", "x-should-retry", UNHELD_HEADER),
    *(f"anthropic-ratelimit-requests-{what}" for what in ("limit", "remaining", "reset")),
    *(f"anthropic-ratelimit-tokens-{what}" for what in ("limit", "remaining", "reset")),
)
"""Headers of answers that the scripts of a page may read."""


def create_app(
    assistant: Assistant,
    keyring: Keyring,
    aliases: Sequence[str] = (),
    *,
    limiter: Limiter | None = None,
    metrics: Metrics | None = None,
    batches: BatchService | None = None,
    library: Library | None = None,
    lifecycle: Lifecycle | None = None,
    probes: Mapping[str, HealthCheck] | None = None,
    tracer_provider: TracerProvider | None = None,
    cors_origins: Sequence[str] = (),
    mounts: Mapping[str, ASGIApp] | None = None,
) -> FastAPI:
    """Create the API over one assistant. No argument is changed.

    Listeners of turns (:func:`make_turn_listeners`) are given to the assistant when that is constructed.

    Args:
        aliases: further names that the models endpoint lists the model under.
        metrics: counters of turns, whose requests are counted here; shown at ``/metrics``.
        probes: checks that ``/ready`` runs, by name.
        tracer_provider: where spans of requests go; None: nowhere.
        cors_origins: origins whose web pages may use the API.
        mounts: further applications by the path that they are mounted at, such as a console.
    """
    lifecycle = lifecycle or Lifecycle()
    limiter = limiter or Limiter()
    metrics = metrics or Metrics()
    state = make_state_registry(assistant, lifecycle)
    app = FastAPI(
        title="Commonweight",
        version=__version__,
        exception_handlers=make_exception_handlers(),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={
            "tracer_provider": tracer_provider,
            "tracing": tracer_provider is not None,
            "operation_spans": False,
            "exclude": lambda scope: scope["path"] in PROBE_PATHS,
            # Ours are in Prometheus's format, and in lines without texts of exceptions.
            "metrics": False,
            "logs": False,
            "auto_configure": False,
        },
    )
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=_EXPOSED_HEADERS,
        )
    app.add_middleware(OriginMiddleware, keyring=keyring, origins=cors_origins)
    app.add_middleware(RequestMiddleware, lifecycle=lifecycle, listeners=[metrics.count_request, log_request])

    has_key = Depends(require_key(keyring))
    for_models = [Depends(require_scope("models"))]
    checks = [has_key, Depends(check_version), Depends(lifecycle.check_accepting)]
    api = APIRouter(dependencies=checks, responses=ERRORS)
    api.include_router(make_messages_router(assistant, limiter), dependencies=for_models)
    api.include_router(
        make_models_router(assistant, aliases, has_batches=batches is not None), dependencies=for_models
    )
    if batches is not None:
        api.include_router(make_batches_router(batches, limiter), dependencies=[Depends(require_scope("batches"))])
    if library is not None:
        api.include_router(make_files_router(library), dependencies=[Depends(require_scope("files"))])
    app.include_router(api)
    app.include_router(make_health_router(assistant, lifecycle, probes or {}))

    @app.get("/metrics", include_in_schema=False, dependencies=[has_key, Depends(require_scope("admin"))])
    async def figures() -> Response:
        return Response(format_metrics(metrics.registry, state), media_type=MEDIA_TYPE)

    for path, mounted in (mounts or {}).items():
        app.mount(path, mounted)

    setattr(app, "openapi", lambda: make_openapi(app))  # noqa: B010 - FastAPI's documented way, which mypy refuses
    return app


def make_turn_listeners(
    metrics: Metrics, limiter: Limiter, tracer_provider: TracerProvider | None = None
) -> list[TurnListener]:
    """Make the listeners of turns that a server needs: request log, metrics, limits and traces."""
    tracers = [] if tracer_provider is None else [make_turn_tracer(tracer_provider)]
    return [record_turn, metrics.count_turn, limiter.on_turn, *tracers]


async def check_version(request: Request) -> None:
    """A dependency of routes: refuse unknown versions of the API."""
    # curl users forget the header; they mean the version that every example shows.
    version = request.headers.get("anthropic-version", "2023-06-01")
    if version not in API_VERSIONS:
        raise InvalidRequestError(f'anthropic-version: "{version}" is not a valid version')
