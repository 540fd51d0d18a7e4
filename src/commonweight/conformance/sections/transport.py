"""Headers, versions, paths, methods and bodies: sections 2 to 4."""

import gzip
import json

from commonweight.conformance.checks import check
from commonweight.conformance.conversation import GREETING
from commonweight.conformance.grammar import read_stream
from commonweight.conformance.shapes import check_error
from commonweight.conformance.target import COUNT, MESSAGES, NEW_VERSION, OLD_VERSION, Target, check_accepted

MIB = 2**20


@check()
async def a_key_in_x_api_key(target: Target) -> None:
    """Old SDKs and LiteLLM show their key in `x-api-key` (§3)."""
    check_accepted(await target.post(target.request(), headers={"x-api-key": target.key or "any"}))


@check()
async def a_key_as_bearer(target: Target) -> None:
    """New SDKs and agents show their key in `Authorization: Bearer` (§1.2, §3)."""
    check_accepted(await target.post(target.request(), headers={"authorization": f"Bearer {target.key or 'any'}"}))


@check()
async def of_two_keys_x_api_key_counts(target: Target) -> None:
    """Where both headers arrive, `x-api-key` is the one that counts (§1.2)."""
    right, wrong = target.require_key(), "sk-wrong"
    check_accepted(
        await target.post(target.request(), headers={"x-api-key": right, "authorization": f"Bearer {wrong}"})
    )
    response = await target.post(
        target.request(), headers={"x-api-key": wrong, "authorization": f"Bearer {right}"}
    )
    check_error(response, 401, "authentication_error")


@check()
async def no_key(target: Target) -> None:
    """A request without a key is refused with 401 (§9.1)."""
    target.require_key()
    check_error(await target.post(target.request(), headers={}), 401, "authentication_error")


@check()
async def a_wrong_key(target: Target) -> None:
    """A wrong key is refused with 401, in either header and at every endpoint (§3, §9.1)."""
    target.require_key()
    for headers in ({"x-api-key": "sk-wrong"}, {"authorization": "Bearer sk-wrong"}):
        for path in (MESSAGES, COUNT):
            check_error(await target.post(target.request(), path, headers=headers), 401, "authentication_error")
        check_error(await target.http.get("/v1/models", headers=headers), 401, "authentication_error")


@check()
async def version_2023_06_01(target: Target) -> None:
    """Coding agents, LiteLLM and old SDKs send version 2023-06-01 (§1.1)."""
    check_accepted(
        await target.post(target.request(), headers=target.headers | {"anthropic-version": OLD_VERSION})
    )


@check()
async def version_2026_10_21(target: Target) -> None:
    """Current SDKs send version 2026-10-21 (§1.1)."""
    check_accepted(
        await target.post(target.request(), headers=target.headers | {"anthropic-version": NEW_VERSION})
    )


@check()
async def no_version(target: Target) -> None:
    """People at a terminal forget the version: it is taken as 2023-06-01 (§3)."""
    check_accepted(await target.post(target.request(), headers=target.credentials))


@check()
async def an_unknown_version(target: Target) -> None:
    """An unknown version is refused with 400 (§3)."""
    response = await target.post(target.request(), headers=target.headers | {"anthropic-version": "1999-01-01"})
    check_error(response, 400, "invalid_request_error")


@check()
async def any_beta(target: Target) -> None:
    """No value of `anthropic-beta` is refused, listed or repeated, known or not (§3)."""
    betas = "claude-code-20250219,interleaved-thinking-2025-05-14, never-heard-of-2031-01-01"
    check_accepted(await target.post(target.request(), headers=target.headers | {"anthropic-beta": betas}))
    repeated = [
        *target.headers.items(),
        ("anthropic-beta", "effort-2025-11-24"),
        ("anthropic-beta", "x-2031-01-01"),
    ]
    body = json.dumps(target.request()).encode()
    check_accepted(await target.http.post(MESSAGES, content=body, headers=repeated))


@check()
async def the_query_is_ignored(target: Target) -> None:
    """Agents and old SDKs append `?beta=true` to every path (§2)."""
    check_accepted(await target.post(target.request(), MESSAGES + "?beta=true"))
    body = {"model": target.model, "messages": GREETING}
    check_accepted(await target.post(body, COUNT + "?beta=true"))


@check()
async def telemetry_headers(target: Target) -> None:
    """Headers of SDKs and agents that mean nothing to a server do no harm (§3)."""
    headers = {
        "x-stainless-lang": "js",
        "x-stainless-timeout": "NOT_GIVEN",
        "x-stainless-retry-count": "1",
        "x-claude-code-session-id": "8d8b3c1e",
        "anthropic-workspace-id": "wrkspc_01",
        "anthropic-dangerous-direct-browser-access": "true",
        "idempotency-key": "stainless-1",
        "accept-encoding": "gzip, deflate, br, zstd",
    }
    check_accepted(await target.post(target.request(), headers=target.headers | headers))


@check()
async def every_answer_has_a_request_id(target: Target) -> None:
    """`request-id: req_...` is on every answer, errors and streams as well, and never the same (§4)."""
    answers = [
        await target.post(target.request()),
        await target.post(target.request(stream=True)),
        await target.post(target.request(max_tokens=-1)),
        await target.get("/v1/models"),
        await target.get("/v1/nowhere"),
    ]
    ids = [answer.headers.get("request-id", "") for answer in answers]
    assert all(id_.startswith("req_") for id_ in ids), f"request-id is {ids}"
    assert len(set(ids)) == len(ids), f"two answers have the same request-id: {ids}"


@check()
async def json_answers_are_called_json(target: Target) -> None:
    """Answers and errors have `content-type: application/json` (§4)."""
    for body in (target.request(), target.request(max_tokens=-1)):
        kind = (await target.post(body)).headers.get("content-type", "")
        assert kind.startswith("application/json"), f"content-type is {kind!r}"


@check()
async def unknown_fields(target: Target) -> None:
    """Fields that a server does not know are ignored, wherever they stand (§5)."""
    messages = [{**GREETING[0], "mood": "glad"}]
    await target.create_message(
        messages=messages, safeguards=[{"type": "dangerous_tool_use"}], never_heard_of={"a": 1}
    )


@check()
async def fields_for_other_infrastructure(target: Target) -> None:
    """Fields that only mean something to the original service are accepted (§5)."""
    await target.create_message(
        service_tier="auto",
        speed="standard",
        inference_geo=None,
        metadata={"user_id": '{"device_id":"1"}'},
        diagnostics={"previous_message_id": None},
    )


@check()
async def unknown_paths(target: Target) -> None:
    """What is not offered is 404 with `not_found_error`, also paths that the original service has (§2)."""
    for path in ("/v1/complete", "/v1/organizations/me", "/v1/agents", "/nowhere"):
        check_error(await target.post({}, path), 404, "not_found_error")


@check(lacks="batch")
async def no_batches_where_there_are_none(target: Target) -> None:
    """A server that declares no batches has no place for them either (§2, §11)."""
    batch = {"requests": [{"custom_id": "a", "params": target.request()}]}
    check_error(await target.post(batch, MESSAGES + "/batches"), 404, "not_found_error")


@check()
async def wrong_methods(target: Target) -> None:
    """A path asked for with a method that it has not is an error of the API's shape (§9.1)."""
    response = await target.get(MESSAGES)
    assert response.status_code in (404, 405), f"HTTP {response.status_code}"
    kind = "not_found_error" if response.status_code == 404 else "invalid_request_error"
    check_error(response, response.status_code, kind)


@check()
async def probes_without_a_key(target: Target) -> None:
    """Agents warm the connection with `HEAD /` and `HEAD /api/hello`: any answer but a failure will do (§2)."""
    for path in ("/", "/api/hello"):
        status = (await target.http.head(path)).status_code
        assert status < 500, f"HEAD {path} is answered with {status}"


@check()
async def a_large_body(target: Target) -> None:
    """Bodies of up to 32 MB are read (§9.1)."""
    padded = json.dumps(target.request()).encode() + b" " * (31 * MIB)
    check_accepted(await target.post(padded))


@check()
async def too_large_a_body(target: Target) -> None:
    """A body beyond 32 MB is refused with 413 `request_too_large` (§9.1)."""
    padded = json.dumps(target.request()).encode() + b" " * (33 * MIB)
    check_error(await target.post(padded), 413, "request_too_large")


@check()
async def an_encoded_body(target: Target) -> None:
    """A compressed body is understood or refused with 400 or 415, and never mistaken for text (§3)."""
    body = gzip.compress(json.dumps(target.request()).encode())
    response = await target.post(body, headers=target.headers | {"content-encoding": "gzip"})
    assert response.status_code in (200, 400, 415), f"HTTP {response.status_code}: {response.text[:200]}"


@check()
async def an_encoded_body_that_grows(target: Target) -> None:
    """A compressed body that is beyond 32 MB once it is decompressed is refused (§3)."""
    body = gzip.compress(json.dumps(target.request()).encode() + b" " * (64 * MIB), compresslevel=1)
    response = await target.post(body, headers=target.headers | {"content-encoding": "gzip"})
    assert response.status_code in (400, 413, 415), f"HTTP {response.status_code}: {response.text[:200]}"


@check()
async def an_encoding_that_is_broken(target: Target) -> None:
    """A body that is not what its encoding says is refused with 400 or 415 (§3)."""
    for encoding in ("gzip", "never-heard-of"):
        response = await target.post(target.request(), headers=target.headers | {"content-encoding": encoding})
        assert response.status_code in (400, 415), (
            f"{encoding}: HTTP {response.status_code}: {response.text[:200]}"
        )


@check()
async def http_1_0(target: Target) -> None:
    """Clients of HTTP/1.0 know no chunks: their stream ends with the connection (§10)."""
    answer = await target.send_raw(target.request(stream=True), version="1.0")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split(b" ")[1:2] == [b"200"], f"answered with {head[:100]!r}"
    assert b"transfer-encoding:" not in head.lower(), "the answer comes in chunks"
    read_stream(body.decode())


@check()
async def two_hosts(target: Target) -> None:
    """A request that names two hosts is refused with 400 (§9.1)."""
    answer = await target.send_raw(target.request(), ("host: a",))
    assert answer.split(b" ")[1:2] == [b"400"], f"answered with {answer[:100]!r}"


@check()
async def a_slash_at_the_end(target: Target) -> None:
    """Base URLs may end with a slash, and so may paths (§2)."""
    for path in (f"/{MESSAGES}", f"{MESSAGES}/"):
        check_accepted(
            await target.http.post(target.url.rstrip("/") + path, json=target.request(), headers=target.headers)
        )
