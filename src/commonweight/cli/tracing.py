"""Where spans go: to a collector, if the standard environment variables name one."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

from opentelemetry.trace import TracerProvider

from commonweight import __version__
from commonweight.cli.terminal import UserError

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@contextlib.asynccontextmanager
async def open_tracing() -> AsyncIterator[TracerProvider | None]:
    """Export spans until the block ends; what is left then is sent. None: nobody asked for traces.

    Raises:
        UserError: somebody did, but the packages for it are missing.
    """
    asked = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    if asked is None:
        yield None
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk import trace
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise UserError(
            f"{asked} asks for traces, which need more packages: pip install 'commonweight[tracing]'"
        ) from error
    ours = Resource.create({"service.name": "commonweight", "service.version": __version__})
    provider = trace.TracerProvider(resource=ours.merge(OTELResourceDetector().detect()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield provider
    finally:
        await asyncio.to_thread(provider.shutdown)
