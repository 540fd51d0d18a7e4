"""``commonweight serve``: what it prints works as printed, and it leaves nothing behind, however it ends."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from command import environment
from conftest import Server, running

ENDLESS = {
    "model": "any",
    "max_tokens": 7000,
    "temperature": 0,
    "messages": [
        {"role": "user", "content": "Write kiwi again and again."},
        {"role": "assistant", "content": " ".join(["kiwi"] * 12)},
    ],
}
"""A request that even a small model answers with one word over and over, for minutes."""
LONGEST = 60.0


def printed(server: Server, command: str) -> list[str]:
    """The indented lines to copy that begin with ``command``."""
    lines = re.findall(rf"^    ({command} .*)$", server.log.read_text(), re.MULTILINE)
    assert lines, server.log.read_text()
    return lines


def shell(script: str, server: Server) -> str:
    """What the script prints in a shell where the key is known."""
    done = subprocess.run(
        ["bash", "-e"],
        input=script,
        env=environment(COMMONWEIGHT_API_KEY=server.key),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_printed_curl_works(server: Server) -> None:
    [curl] = printed(server, "curl")
    answer = json.loads(shell(curl, server))
    assert answer["type"] == "message"
    assert answer["content"][0]["type"] == "text"


def test_the_printed_environment_is_all_that_an_sdk_needs(server: Server) -> None:
    exports = "\n".join(printed(server, "export"))
    program = """
import anthropic
client = anthropic.Anthropic()
print(client.models.retrieve(client.models.list().data[0].id).type)
"""
    assert shell(f"{exports}\n{sys.executable} - <<'EOF'{program}EOF", server) == "model\n"


def test_it_says_what_memory_it_takes(server: Server) -> None:
    amount = r"\d+(\.\d)? (bytes|kB|MB|GB)"
    line = rf"Cache: \d+ tokens in {amount}, idle prefixes {amount} in RAM, {amount} on disk"
    assert re.search(rf"^{line}$", server.log.read_text(), re.MULTILINE)


def test_the_key_is_not_printed(server: Server) -> None:
    assert server.key not in server.log.read_text()


def has_ended(process: psutil.Process) -> bool:
    """Also when nobody has taken note of its end yet."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def assert_all_end(processes: list[psutil.Process]) -> None:
    deadline = time.monotonic() + LONGEST
    while not all(map(has_ended, processes)):
        assert time.monotonic() < deadline, f"still there: {processes}"
        time.sleep(0.05)


@contextmanager
def streaming(server: Server) -> Iterator[Iterator[dict[str, Any]]]:
    """The events of an answer that would go on for minutes, from its first text on."""
    headers = {"x-api-key": server.key}
    request = httpx.stream(
        "POST", f"{server.url}/v1/messages", headers=headers, json=ENDLESS | {"stream": True}, timeout=LONGEST
    )
    with request as response:
        assert response.status_code == 200
        lines = (line for line in response.iter_lines() if line.startswith("data: "))
        events = (json.loads(line.removeprefix("data: ")) for line in lines)
        assert any(event["type"] == "content_block_delta" for event in events)
        yield events


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_all_its_processes(number: signal.Signals, tmp_path: Path) -> None:
    with running(tmp_path / "log.txt") as (server, process):
        engine = psutil.Process(server.pid).children(recursive=True)
        assert engine != []
        process.send_signal(number)
        assert process.wait(LONGEST) == 0
        assert_all_end(engine)
    assert server.log.read_text().endswith("Ctrl-C stops it.\n")


@pytest.mark.slow
@pytest.mark.parametrize("is_in_a_hurry", [False, True])
def test_a_signal_during_a_stream_ends_it_with_an_error_that_clients_know(
    is_in_a_hurry: bool, tmp_path: Path
) -> None:
    patience = LONGEST if is_in_a_hurry else 1
    with running(tmp_path / "log.txt", "--drain", str(patience)) as (server, process):
        engine = psutil.Process(server.pid).children(recursive=True)
        with streaming(server) as events:
            process.send_signal(signal.SIGTERM)
            # For a while the stream goes on as if nothing had happened; a second signal ends that.
            assert next(events)["type"] == "content_block_delta"
            wait_until_printed("Stopping.", server.log)
            if is_in_a_hurry:
                process.send_signal(signal.SIGTERM)
            *_, last = events
        assert last["type"] == "error"
        assert last["error"]["type"] == "api_error"
        assert process.wait(LONGEST) == 0
        assert_all_end(engine)
    output = server.log.read_text()
    assert f"Running requests get {patience:g} seconds" in output
    assert "Traceback" not in output
    assert "ERROR" not in output


@pytest.mark.slow
def test_while_a_stream_is_finished_no_other_work_is_begun(tmp_path: Path) -> None:
    with running(tmp_path / "log.txt", "--drain", str(LONGEST)) as (server, process):
        headers = {"x-api-key": server.key}
        with streaming(server) as events:
            process.send_signal(signal.SIGTERM)
            wait_until_printed("Stopping.", server.log)
            ready = httpx.get(f"{server.url}/ready")
            assert (ready.status_code, ready.json()["checks"]["accepting"]) == (503, False)
            assert httpx.get(f"{server.url}/health").json()["status"] == "stopping"
            refused = httpx.post(f"{server.url}/v1/messages", headers=headers, json=ENDLESS)
            assert (refused.status_code, refused.json()["error"]["type"]) == (503, "api_error")
            assert 1 <= int(refused.headers["retry-after"]) <= LONGEST
            assert next(events)["type"] == "content_block_delta"
        # Its client has left, so there is nothing more to wait for.
        assert process.wait(LONGEST) == 0


@pytest.mark.slow
def test_prompts_on_their_way_to_disk_arrive_before_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    long = {"model": "any", "max_tokens": 1, "messages": [{"role": "user", "content": "word " * 1000}]}
    read = []
    for number in range(2):
        with running(tmp_path / f"log{number}.txt", "--cache-disk", "500MB") as (server, process):
            answer = httpx.post(
                f"{server.url}/v1/messages", headers={"x-api-key": server.key}, json=long, timeout=LONGEST
            )
            process.send_signal(signal.SIGTERM)
            read.append(answer.json()["usage"]["cache_read_input_tokens"])
            assert process.wait(LONGEST) == 0
    assert read[0] == 0
    assert read[1] > 900


@pytest.mark.slow
def test_the_log_is_json_where_that_is_asked_for(tmp_path: Path) -> None:
    with running(tmp_path / "log.txt", "--log-format", "json") as (server, _):
        answer = httpx.get(f"{server.url}/v1/models", headers={"x-api-key": server.key})
        wait_until_printed("GET /v1/models", server.log)
    [line] = [line for line in server.log.read_text().splitlines() if line.startswith("{")]
    told = json.loads(line)
    assert told["request_id"] == answer.headers["request-id"]
    assert (told["method"], told["route"], told["status"]) == ("GET", "/v1/models", 200)


def test_metrics_of_a_server_that_needs_a_key_need_it_too(server: Server) -> None:
    url = f"{server.url}/metrics"
    assert httpx.get(url).status_code == 401
    figures = httpx.get(url, headers={"authorization": f"Bearer {server.key}"})
    assert figures.status_code == 200
    assert re.search(r"^commonweight_engine_kv_cells [1-9]", figures.text, re.MULTILINE)
    assert re.search(r"^process_resident_memory_bytes [1-9]", figures.text, re.MULTILINE)


@pytest.mark.slow
def test_an_answer_that_is_nearly_done_is_finished_before_it_ends(tmp_path: Path) -> None:
    with running(tmp_path / "log.txt") as (server, process):
        request = httpx.stream(
            "POST",
            f"{server.url}/v1/messages",
            headers={"x-api-key": server.key},
            json=ENDLESS | {"stream": True, "max_tokens": 16},
            timeout=LONGEST,
        )
        with request as response:
            lines = response.iter_lines()
            assert "event: message_start" in lines
            process.send_signal(signal.SIGTERM)
            assert "event: message_stop" in list(lines)
        assert process.wait(LONGEST) == 0


@pytest.mark.slow
@pytest.mark.parametrize("is_busy", [False, True])
def test_no_engine_is_left_when_the_server_is_killed(is_busy: bool, tmp_path: Path) -> None:
    with running(tmp_path / "log.txt") as (server, process):
        engine = psutil.Process(server.pid).children(recursive=True)
        assert engine != []
        if is_busy:
            with streaming(server) as events:
                process.kill()
                with pytest.raises(httpx.TransportError):
                    list(events)
        else:
            process.kill()
        process.wait(LONGEST)
        assert_all_end(engine)


def wait_until_printed(text: str, log: Path) -> None:
    deadline = time.monotonic() + LONGEST
    while text not in log.read_text():
        assert time.monotonic() < deadline, f"{text!r} is not in: {log.read_text()}"
        time.sleep(0.05)
