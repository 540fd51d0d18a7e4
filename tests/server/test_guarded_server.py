"""A server that keeps to a charter, over HTTP."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from command import run
from conftest import KEY, Server, running
from sample_charter import BREAD, UMBRELLA, source


def ask(server: Server, text: str, **fields: object) -> httpx.Response:
    body = {"model": "m", "max_tokens": 8, "messages": [{"role": "user", "content": text}], **fields}
    return httpx.post(f"{server.url}/v1/messages", json=body, headers={"x-api-key": server.key}, timeout=60)


@pytest.fixture(scope="module")
def umbrellas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("charter") / "umbrellas.md"
    path.write_bytes(source())
    return path


def test_the_default_charter_is_kept_unless_it_is_turned_off(server: Server, tmp_path: Path) -> None:
    def listed(server: Server) -> dict[str, Any]:
        answer = httpx.get(f"{server.url}/v1/models", headers={"x-api-key": server.key})
        model: dict[str, Any] = answer.json()["data"][0]
        return model

    with running(tmp_path / "output.txt", "--guard", "off", "--data", str(tmp_path)) as (unguarded, _):
        assert not listed(unguarded).get("guard")
    guard = listed(server)["guard"]
    assert guard["mode"] == "enforce"
    assert guard["states"]
    assert len(guard["sha256"]) == 64


def test_a_charter_in_prose_is_kept(umbrellas: Path, tmp_path: Path) -> None:
    arguments = ("--charter", str(umbrellas), "--data", str(tmp_path))
    with running(tmp_path / "output.txt", *arguments) as (server, _):
        response = ask(server, UMBRELLA)
        refused = response.json()
        assert refused["stop_reason"] == "refusal"
        assert refused["stop_details"] == {
            "type": "refusal",
            "category": "general_harms",
            "explanation": "I don't talk about umbrellas. I can help with raincoats.",
        }
        assert refused["guard"]["principle"] == "no-umbrellas"
        assert refused["guard"]["block"] == "messages[0].content[0]"
        assert refused["guard"]["span"][1] <= len(UMBRELLA)
        assert "digest" not in refused["guard"]
        assert refused["usage"]["input_tokens"] > 0
        # The next turn passes, though what was refused stands in its history.
        passed = ask(
            server,
            BREAD,
            messages=[
                {"role": "user", "content": UMBRELLA},
                {"role": "assistant", "content": "(nothing)"},
                {"role": "user", "content": BREAD},
            ],
        ).json()
        assert passed["stop_reason"] in ("max_tokens", "end_turn")
        assert "guard" not in passed
        events = [
            json.loads(line.removeprefix("data: "))
            for line in ask(server, UMBRELLA, stream=True).text.splitlines()
            if line.startswith("data: ") and '"type":"ping"' not in line
        ]
        assert [event["type"] for event in events] == ["message_start", "message_delta", "message_stop"]
        assert events[1]["delta"]["stop_reason"] == "refusal"
        assert events[1]["guard"]["charter"] == refused["guard"]["charter"]
        figures = httpx.get(f"{server.url}/metrics", headers={"x-api-key": KEY}).text
        assert (
            'commonweight_guard_verdicts_total{outcome="refused",place="input",principle="no-umbrellas"' in figures
        )
        assert 'commonweight_guard_scores_total{outcome="hit"}' in figures
        assert "commonweight_guard_closed_messages_total 2.0" in figures
    start, end = refused["guard"]["span"]
    name = response.headers["request-id"]
    explained = run("guard", "explain", name, "--charter", umbrellas, "--data", tmp_path).stdout
    assert (
        f"refused, input, messages[0].content[0] of the request, characters {start} to {end}, text " in explained
    )
