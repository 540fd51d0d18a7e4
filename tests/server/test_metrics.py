"""What ``/metrics`` tells of the requests before."""

import httpx
import pytest
from fastapi import FastAPI
from observed import KEY, application, body, client, gguf
from prometheus_client.parser import text_string_to_metric_families

from commonweight.catalog.gguf import Gguf

__all__ = ["gguf"]

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(text: str) -> Samples:
    """Every sample by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples["commonweight_" + name, frozenset(labels.items())]


@pytest.fixture
def app(gguf: Gguf) -> FastAPI:
    return application(gguf)


async def figures(asking: httpx.AsyncClient) -> Samples:
    response = await asking.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return read(response.text)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_turn_is_counted_with_its_tokens_and_times(app: FastAPI, stream: bool) -> None:
    async with client(app) as asking:
        for _ in range(2):
            assert (await asking.post("/v1/messages", json=body(stream=stream))).status_code == 200
        usage = (await asking.post("/v1/messages", json=body())).json()["usage"]
        found = await figures(asking)
    assert value(found, "turns_total", priority="interactive", outcome="end_turn") == 3
    assert value(found, "tokens_total", kind="output") == 3 * usage["output_tokens"]
    prompt = usage["input_tokens"] + usage["cache_read_input_tokens"]
    assert value(found, "tokens_total", kind="input") == prompt + 2  # of the later two one token each is computed
    assert value(found, "tokens_total", kind="cache_read") == 2 * usage["cache_read_input_tokens"]
    for name in ("queue", "prefill", "first_token", "turn"):
        assert value(found, f"{name}_seconds_count", priority="interactive") == 3
    waits = 3 * (usage["output_tokens"] - 1)
    assert value(found, "inter_token_seconds_count", priority="interactive") == waits
    assert value(found, "inter_token_seconds_bucket", priority="interactive", le="+Inf") == waits
    assert value(found, "http_requests_total", method="POST", route="/v1/messages", status="200") == 3
    assert value(found, "http_requests_running") == 1


async def test_errors_are_counted_by_type_wherever_they_are_told(gguf: Gguf) -> None:
    app = application(gguf, script=[])  # the engine fails at once
    async with client(app) as asking:
        for stream in (True, False):
            assert (await asking.post("/v1/messages", json=body(stream=stream))).status_code == 500
        await asking.post("/v1/messages", json=body(max_tokens=0.5))
        await asking.get("/v1/models/none")
        await asking.get("/nowhere")
        await asking.delete("/v1/messages")
        await asking.get("/v1/models", headers={"x-api-key": "wrong"})
        found = await figures(asking)
    assert value(found, "errors_total", type="api_error") == 2
    assert value(found, "errors_total", type="invalid_request_error") == 2
    assert value(found, "errors_total", type="not_found_error") == 2
    assert value(found, "errors_total", type="authentication_error") == 1
    assert value(found, "turns_total", priority="interactive", outcome="error") == 2


async def test_no_label_is_what_a_client_makes_up(app: FastAPI) -> None:
    async with client(app) as asking:
        for made_up in ("made-up-1", "made-up-2"):
            await asking.get(f"/{made_up}")
            await asking.get(f"/v1/models/{made_up}")
            await asking.request(made_up.upper(), "/v1/models")
            await asking.post("/v1/messages", json=body(model=made_up, metadata={"user_id": made_up}))
        text = (await asking.get("/metrics")).text
    assert "made" not in text.lower()
    found = read(text)
    assert value(found, "http_requests_total", method="GET", route="other", status="404") == 2
    assert value(found, "http_requests_total", method="GET", route="/v1/models/{model_id}", status="404") == 2
    assert value(found, "http_requests_total", method="other", route="/v1/models", status="405") == 2


async def test_figures_of_the_engine_are_those_of_the_moment(app: FastAPI, gguf: Gguf) -> None:
    async with client(app) as asking:
        found = await figures(asking)
    assert value(found, "engine_ready") == 1
    for state in ("running", "waiting"):
        assert value(found, "engine_jobs", state=state) == 0
    for tier in ("running", "ram", "disk"):
        assert value(found, "engine_reused_tokens_total", tier=tier) == 0
    assert value(found, "engine_forced_tokens_total") == 0


async def test_a_key_is_needed_where_one_is_needed_at_all(app: FastAPI, gguf: Gguf) -> None:
    async with client(app) as asking:
        assert (await asking.get("/metrics", headers={"x-api-key": "wrong"})).status_code == 401
        assert (await asking.get("/metrics", headers={"authorization": f"Bearer {KEY}"})).status_code == 200
    async with client(application(gguf, key=None)) as asking:
        assert (await asking.get("/metrics", headers={"x-api-key": ""})).status_code == 200
