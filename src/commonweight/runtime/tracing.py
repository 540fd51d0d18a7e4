"""Export of spans to an OTLP collector that the standard environment variables name."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

from opentelemetry.trace import TracerProvider

from commonweight import __version__
from commonweight.runtime.errors import UserError

ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@contextlib.asynccontextmanager
async def open_tracing() -> AsyncIterator[TracerProvider | None]:
    """Export spans until the block ends; what is left then is sent. None: no collector is named.

    Raises:
        UserError: one is named, but the packages for it are missing.
    """
    asked = next((name for name in ENDPOINT_VARIABLES if os.environ.get(name)), None)
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
