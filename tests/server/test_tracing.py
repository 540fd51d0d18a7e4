"""Spans of requests and turns, as an exporter gets them."""

from itertools import pairwise

import pytest
from observed import ANSWER, KEY, PROMPT, application, body, client, gguf
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from commonweight.catalog.gguf import Gguf
from commonweight.prompting import Tokenizer

__all__ = ["gguf"]

TRACE, PARENT = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    spans = exporter.get_finished_spans()
    assert len({span.name for span in spans}) == len(spans)
    return {span.name: span for span in spans}


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    number: int = span.parent.span_id
    return number


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    number: int = span.context.span_id
    return number


@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_its_turn_and_the_parts_of_that(
    gguf: Gguf, exporter: InMemorySpanExporter, provider: TracerProvider, stream: bool
) -> None:
    async with client(application(gguf, tracer_provider=provider)) as asking:
        traceparent = f"00-{TRACE:032x}-{PARENT:016x}-01"
        answer = await asking.post(
            "/v1/messages", json=body(stream=stream, top_k=5), headers={"traceparent": traceparent}
        )
    assert answer.status_code == 200
    spans = by_name(exporter)
    turn_name = f"chat {gguf.path.stem}"
    assert set(spans) == {"POST /v1/messages", turn_name, "prepare", "queue", "prefill", "generate"}
    request, turn = spans["POST /v1/messages"], spans[turn_name]
    assert all(span.context and span.context.trace_id == TRACE for span in spans.values())
    assert (parent_of(request), request.kind) == (PARENT, SpanKind.SERVER)
    assert parent_of(turn) == id_of(request)
    parts = [spans[name] for name in ("prepare", "queue", "prefill", "generate")]
    assert {parent_of(part) for part in parts} == {id_of(turn)}
    edges = [
        turn.start_time,
        *(edge for part in parts for edge in (part.start_time, part.end_time)),
        turn.end_time,
    ]
    assert all(edges)
    # Seconds as floats are not exact to the nanosecond.
    assert all(then - first > -1000 for first, then in pairwise(edge for edge in edges if edge))
    found = turn.attributes
    assert found is not None
    assert found["gen_ai.operation.name"] == "chat"
    assert found["gen_ai.request.model"] == "m"
    assert found["gen_ai.request.top_k"] == 5
    assert found["gen_ai.request.stream"] is stream
    assert found["gen_ai.response.finish_reasons"] == ("end_turn",)
    assert found["gen_ai.usage.output_tokens"] == len(Tokenizer(gguf).encode(ANSWER)) + 1
    assert found["commonweight.request_id"] == answer.headers["request-id"]


async def test_an_error_is_one_in_its_spans(
    gguf: Gguf, exporter: InMemorySpanExporter, provider: TracerProvider
) -> None:
    async with client(application(gguf, script=[], tracer_provider=provider)) as asking:
        assert (await asking.post("/v1/messages", json=body())).status_code == 500
    spans = by_name(exporter)
    turn = spans[f"chat {gguf.path.stem}"]
    assert turn.status.status_code is StatusCode.ERROR
    assert turn.attributes is not None
    assert turn.attributes["error.type"] == "api_error"
    assert spans["POST /v1/messages"].status.status_code is StatusCode.ERROR


async def test_spans_hold_neither_content_nor_keys(
    gguf: Gguf, exporter: InMemorySpanExporter, provider: TracerProvider
) -> None:
    async with client(application(gguf, tracer_provider=provider)) as asking:
        await asking.post("/v1/messages", json=body(system="Say nothing.", stop_sequences=["a stop"]))
        await asking.post("/v1/messages", json=body(max_tokens=PROMPT))
        await asking.get("/v1/models", headers={"x-api-key": "sk-wrong-one"})
    told = "".join(span.to_json() for span in exporter.get_finished_spans())
    for secret in (PROMPT, ANSWER, KEY, "sk-wrong-one", "Say nothing", "a stop"):
        assert secret not in told


async def test_probes_leave_no_spans(gguf: Gguf, exporter: InMemorySpanExporter, provider: TracerProvider) -> None:
    async with client(application(gguf, tracer_provider=provider)) as asking:
        for path in ("/health", "/ready", "/metrics"):
            assert (await asking.get(path)).status_code == 200
    assert exporter.get_finished_spans() == ()
