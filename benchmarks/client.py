"""Streamed requests, timed where a client feels it. All servers are asked by the same code."""

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from benchmarks.prompts import Prompt
from benchmarks.servers import Server
from benchmarks.wire import Answer, Event, make_body, read_answer

PATIENCE = 600.0
"""Seconds without a byte after which a server counts as stuck."""
HEADERS = {"Content-Type": "application/json", "anthropic-version": "2023-06-01"}

Pieces = list[tuple[float, bytes]]


def ask(server: Server, prompt: Prompt, max_tokens: int) -> Answer:
    """Stream one answer.

    Raises:
        RuntimeError: the server answered with an error.
    """
    return ask_all(server, [prompt], max_tokens)[0]


def ask_all(server: Server, prompts: Sequence[Prompt], max_tokens: int) -> list[Answer]:
    """Send all requests at the same moment, each on a connection of its own; answers in the order of prompts.

    Raises:
        RuntimeError: the server answered one with an error.
    """
    barrier = threading.Barrier(len(prompts))
    futures: list[Future[Answer]] = [Future() for _ in prompts]

    def run(prompt: Prompt, future: Future[Answer]) -> None:
        try:
            future.set_result(_ask(server, prompt, max_tokens, barrier.wait))
        except Exception as error:
            barrier.abort()
            future.set_exception(error)

    for prompt, future in zip(prompts, futures, strict=True):
        # Daemons: should this process be told to end, it must not wait for answers before it ends the servers.
        threading.Thread(target=run, args=(prompt, future), daemon=True).start()
    # Those that were only kept waiting by another's failure have nothing to say about it.
    futures.sort(key=lambda future: isinstance(future.exception(), threading.BrokenBarrierError))
    return [future.result() for future in futures]


def _ask(server: Server, prompt: Prompt, max_tokens: int, wait: Callable[[], object]) -> Answer:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
        # Clients keep their connections, so the clock starts on one that has been used.
        connection.request("GET", "/v1/models", headers=HEADERS)
        model = json.load(connection.getresponse())["data"][0]["id"]
        body = json.dumps(make_body(model, prompt, max_tokens))
        wait()
        sent = time.perf_counter()
        connection.request("POST", "/v1/messages", body, HEADERS)
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"{response.status} {response.read().decode()}")
        pieces: Pieces = []
        # Read only afterwards: the cores that would do it are computing the next token.
        while piece := response.read1():
            pieces.append((time.perf_counter(), piece))
    return read_answer((sent, time.perf_counter()), _events(pieces))


def _events(pieces: Pieces) -> Iterator[Event]:
    """Server-sent events, each when its last byte arrived."""
    rest = b""
    for seconds, piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            data = line.removeprefix(b"data:").strip()
            if line.startswith(b"data:") and data != b"[DONE]":
                yield seconds, json.loads(data)
