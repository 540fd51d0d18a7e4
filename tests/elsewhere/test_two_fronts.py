"""Two front ends on one PostgreSQL, before one server: as good as one. And what they say when that one dies."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest
from peers import Machine

from conftest import Server
from conftest import running as serving
from databases import postgresql

pytestmark = [pytest.mark.elsewhere, pytest.mark.timeout(900)]

pytest_plugins = "peer_fixtures"


@pytest.fixture(scope="module")
def fronts(machine: Machine, logs: Path) -> Iterator[tuple[Server, Server, str]]:
    """Two of them, and a key of a team's."""
    with postgresql() as cluster, contextlib.ExitStack() as stack:
        data = logs / f"shared-{machine.kind}"
        database = ("--database", f"postgresql+asyncpg://postgres@/postgres?host={cluster.folder}")
        shared = (*database, "--data", str(data))
        arguments = ("--engine", machine.kind, "--engine-url", machine.url, *shared)
        one, other = (
            stack.enter_context(serving(logs / f"{name}-{machine.kind}.log", *arguments))[0]
            for name in ("one", "other")
        )
        made = subprocess.run(
            [
                sys.executable,
                "-m",
                "commonweight",
                "keys",
                "create",
                "team",
                "--requests-per-minute",
                "6",
                *shared,
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        key = next(word for word in (made.stdout + made.stderr).split() if word.startswith("sk-"))
        yield one, other, key


def client(server: Server, key: str | None = None) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key=key or server.key, max_retries=0)


HELLO: Any = {"model": "any", "max_tokens": 8, "messages": [{"role": "user", "content": "Hello"}]}


def test_the_doctor_finds_the_server(machine: Machine, logs: Path) -> None:
    command = [sys.executable, "-m", "commonweight", "doctor", "--port", "0", "--data", str(logs / "doctor")]
    done = subprocess.run(
        [*command, "--engine", machine.kind, "--engine-url", machine.url],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "300"},
    )
    assert re.search(rf"ok +servers +{machine.kind} at {machine.url}: .* the template as here", done.stdout, re.I)


def test_a_batch_of_one_is_the_others_too(fronts: tuple[Server, Server, str]) -> None:
    one, other, _ = fronts
    with client(one) as here, client(other) as there:
        requests: Any = [{"custom_id": str(i), "params": HELLO} for i in range(12)]
        batch = here.messages.batches.create(requests=requests)
        while there.messages.batches.retrieve(batch.id).processing_status != "ended":
            time.sleep(0.1)
        results = list(there.messages.batches.results(batch.id))
        assert sorted(int(result.custom_id) for result in results) == list(range(12))
        assert {result.result.type for result in results} == {"succeeded"}


def test_files_too(fronts: tuple[Server, Server, str]) -> None:
    one, other, _ = fronts
    with client(one) as here, client(other) as there:
        made = here.files.upload(file=("note.txt", b"The key is under the mat.", "text/plain"))
        assert there.files.retrieve_metadata(made.id).filename == "note.txt"
        document: Any = {"type": "document", "source": {"type": "file", "file_id": made.id}}
        asked: Any = [document, {"type": "text", "text": "Where is it?"}]
        answer = there.messages.create(
            model="any",
            max_tokens=4,
            messages=[{"role": "user", "content": asked}],
        )
        assert answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0) > 20


def test_limits_hold_for_both_together(fronts: tuple[Server, Server, str]) -> None:
    one, other, key = fronts
    taken = refused = 0
    with client(one, key) as here, client(other, key) as there:
        for i in range(9):
            try:
                (here, there)[i % 2].messages.create(**HELLO)
                taken += 1
            except anthropic.RateLimitError as error:
                assert int(error.response.headers["retry-after"]) >= 1
                refused += 1
    assert (taken, refused) == (6, 3)


def test_a_server_that_is_killed_while_it_answers(fronts: tuple[Server, Server, str], machine: Machine) -> None:
    one, _, _ = fronts
    long = HELLO | {"max_tokens": 2000, "messages": [{"role": "user", "content": "Tell me a very long story."}]}
    begun = ended = False
    with client(one) as here:
        with pytest.raises(anthropic.APIStatusError) as died:
            for event in here.messages.create(**long, stream=True):
                if event.type == "content_block_delta" and not begun:
                    begun = True
                    machine.stop(signal.SIGKILL)
                ended |= event.type == "message_stop"
        assert begun
        assert not ended
        assert "failed in the middle of the answer" in str(died.value)
        try:
            # Nothing that begins now hangs, or gets half an answer.
            begun_at = time.monotonic()
            for _ in range(8):
                with pytest.raises(anthropic.APIStatusError) as refused:
                    here.messages.create(**HELLO)
                assert refused.value.status_code == 529
            assert time.monotonic() - begun_at < 30
            assert httpx.get(f"{one.url}/health").status_code == 200
            assert httpx.get(f"{one.url}/ready").status_code == 503
        finally:
            machine.start()
        deadline = time.monotonic() + 120
        while httpx.get(f"{one.url}/ready").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert here.messages.create(**HELLO).usage.output_tokens > 0
