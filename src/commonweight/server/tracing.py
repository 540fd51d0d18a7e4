"""OpenTelemetry spans of turns. Those of HTTP requests come from FastAPI, with the trace context of the client.

A turn's spans are made when it is over, from its record, so that tracing costs nothing while tokens flow.

Source: https://github.com/open-telemetry/semantic-conventions-genai/blob/main/docs/gen-ai/client-inference.md
"""

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, TracerProvider
from opentelemetry.util.types import AttributeValue

from commonweight import __version__
from commonweight.turn import TurnListener, TurnRecord

_MOST_NAME = 200
"""Characters of a name that a client made up."""


def make_turn_tracer(provider: TracerProvider) -> TurnListener:
    """Make a listener that records every turn as a span, within the span of its request if there is one."""
    tracer = provider.get_tracer("commonweight", __version__)
    return lambda record: _record_span(tracer, record)


def _record_span(tracer: Tracer, record: TurnRecord) -> None:
    times = record.times

    def at(seconds: float) -> int:
        return int((times.begun_at + seconds) * 1e9)

    span = tracer.start_span(
        f"chat {record.served_by}",
        kind=SpanKind.INTERNAL,  # the model is ours, and not called over a network
        start_time=at(0),
        attributes=_make_attributes(record),
    )
    if record.error:
        span.set_status(Status(StatusCode.ERROR))
    context = trace.set_span_in_context(span)
    begun = 0.0
    for name, seconds in (("prepare", times.prepare), ("queue", times.queue), ("prefill", times.prefill)):
        if seconds is None:
            break
        tracer.start_span(name, context, start_time=at(begun)).end(at(begun + seconds))
        begun += seconds
    else:
        tracer.start_span("generate", context, start_time=at(begun)).end(at(times.total))
    span.end(at(times.total))


def _make_attributes(record: TurnRecord) -> dict[str, AttributeValue]:
    request, usage, times, origin = record.request, record.usage, record.times, record.origin
    attributes: dict[str, AttributeValue | None] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "commonweight",
        "gen_ai.request.model": record.model[:_MOST_NAME],
        "gen_ai.request.max_tokens": request.max_tokens,
        "gen_ai.request.temperature": request.temperature,
        "gen_ai.request.top_p": request.top_p,
        "gen_ai.request.top_k": request.top_k,
        "gen_ai.request.stream": bool(request.stream),
        "gen_ai.request.reasoning.level": request.effort,
        "gen_ai.response.model": record.served_by,
        "gen_ai.response.finish_reasons": [record.stop_reason] if record.stop_reason else None,
        "gen_ai.response.time_to_first_chunk": times.first_token,
        # With cached tokens, other than the API's own figure.
        "gen_ai.usage.input_tokens": (
            usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens
        ),
        "gen_ai.usage.cache_read.input_tokens": usage.cache_read_input_tokens,
        "gen_ai.usage.cache_write.input_tokens": usage.cache_creation_input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.output_tokens_details.thinking_tokens,
        "error.type": record.error,
        "commonweight.request_id": origin.request_id,
        "commonweight.key_id": origin.key_id,
        "commonweight.priority": origin.priority,
    }
    return {name: value for name, value in attributes.items() if value is not None}
