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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_all_its_processes(number: signal.Signals, tmp_path: Path) -> None:
    with running(tmp_path / "log.txt") as (server, process):
        engine = psutil.Process(server.pid).children(recursive=True)
        assert engine != []
        process.send_signal(number)
        assert process.wait(LONGEST) == 0
        assert_all_end(engine)
    assert server.log.read_text().endswith("Ctrl-C stops it.\n")


@pytest.mark.parametrize("is_in_a_hurry", [False, True])
def test_a_signal_during_a_stream_ends_it_with_an_error_that_clients_know(
    is_in_a_hurry: bool, tmp_path: Path
) -> None:
    with running(tmp_path / "log.txt") as (server, process):
        engine = psutil.Process(server.pid).children(recursive=True)
        with streaming(server) as events:
            process.send_signal(signal.SIGTERM)
            # For a while the stream goes on as if nothing had happened; a second signal ends that.
            assert next(events)["type"] == "content_block_delta"
            if is_in_a_hurry:
                wait_until_printed("Stopping.", server.log)
                process.send_signal(signal.SIGTERM)
            *_, last = events
        assert last["type"] == "error"
        assert last["error"]["type"] == "api_error"
        assert process.wait(LONGEST) == 0
        assert_all_end(engine)
    output = server.log.read_text()
    assert "Stopping." in output
    assert "Traceback" not in output
    assert "ERROR" not in output


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
            assert next(lines) == "event: message_start"
            process.send_signal(signal.SIGTERM)
            assert "event: message_stop" in list(lines)
        assert process.wait(LONGEST) == 0


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
