"""A connection waits for nobody forever. Its clock is turned by hand here; nothing depends on real time."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from uvicorn.server import ServerState

from commonweight.server import connection, make_uvicorn_config
from commonweight.server.connection import (
    CHECK_INTERVAL_SECONDS,
    MAX_HEAD_BYTES,
    MAX_HEAD_FIELDS,
    MIN_BYTES_PER_SECOND,
    WAIT_TIMEOUT_SECONDS,
    Connection,
    Wait,
)
from replay import Served, replaying

GET = b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
POST = b"POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1000000\r\n\r\n"
LONG = 10_000
"""Seconds that no patience lasts."""


class Clock:
    """What a connection asks of an event loop."""

    def __init__(self) -> None:
        self.now = 0.0
        self._timers: list[tuple[float, Callable[[], object], Timer]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, then: Callable[[], object]) -> "Timer":
        timer = Timer()
        self._timers.append((self.now + delay, then, timer))
        return timer

    def create_task(self, coroutine: Any) -> "Task":
        coroutine.close()
        return Task()

    def pass_by(self, seconds: float) -> None:
        """Turn it."""
        until = self.now + seconds
        while due := [timer for timer in self._timers if timer[0] <= until]:
            first = min(due, key=lambda timer: timer[0])
            self._timers.remove(first)
            self.now, then, timer = first
            if not timer.is_cancelled:
                then()
        self.now = until


class Timer:
    """One of its timers."""

    is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Task:
    """The application at work; here it does nothing by itself."""

    def add_done_callback(self, then: object) -> None:
        pass


class Wire(asyncio.Transport):
    """The other end, as the server sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.unsent = 0
        self.written = b""
        self.is_over = self.has_ended = self.is_paused = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.has_ended = True

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.is_over

    def close(self) -> None:
        self.is_over = True

    def abort(self) -> None:
        self.is_over = True

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


class Client:
    """A connection, with somebody at the other end of it."""

    def __init__(self, clock: Clock, state: ServerState) -> None:
        self.wire = Wire()
        self.clock = clock
        config = make_uvicorn_config(app)
        self.connection = Connection(config, state, {}, _loop=clock)
        self.connection.connection_made(self.wire)

    def send(self, data: bytes) -> None:
        assert not self.wire.is_over
        self.connection.data_received(data)

    async def answer(self, body: bytes = b"") -> None:
        """Let the application answer what it was asked."""
        cycle = self.connection.cycle
        await cycle.send({"type": "http.response.start", "status": 200, "headers": []})
        await cycle.send({"type": "http.response.body", "body": body, "more_body": False})

    @property
    def is_at_work(self) -> bool:
        """Whether the application is still to answer."""
        return self.connection.cycle is not None and not self.connection.cycle.disconnected

    def refusal(self) -> tuple[int, str]:
        """Status and type of the error that it was told."""
        head, _, body = self.wire.written.partition(b"\r\n\r\n")
        assert self.wire.has_ended
        told = json.loads(body)
        assert told["type"] == "error"
        assert f"request-id: {told['request_id']}".encode() in head
        assert b"connection: close" in head
        assert f"content-length: {len(body)}".encode() in head
        return int(head.split()[1]), told["error"]["type"]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Never runs: the clock's tasks do not."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state() -> ServerState:
    return ServerState()


@pytest.fixture
def client(clock: Clock, state: ServerState) -> Client:
    return Client(clock, state)


def trickle(client: Client, data: bytes, seconds: float = LONG) -> float:
    """Send some each second, until it is enough or the server is; the seconds that took."""
    started = client.clock.now
    while client.clock.now < started + seconds and not client.wire.is_over and not client.wire.has_ended:
        client.send(data)
        client.clock.pass_by(CHECK_INTERVAL_SECONDS)
    return client.clock.now - started


@pytest.mark.parametrize("start", [b"", b"\r\n", b"G", b"GET / HTTP/1.1\r\nhost: a\r\nb: "])
def test_a_head_that_does_not_come(client: Client, clock: Clock, start: bytes) -> None:
    if start:
        client.send(start)
    clock.pass_by(WAIT_TIMEOUT_SECONDS[Wait.HEAD] - 2 * CHECK_INTERVAL_SECONDS)
    assert not client.wire.is_over
    clock.pass_by(4 * CHECK_INTERVAL_SECONDS)
    if start.strip():
        assert client.refusal() == (408, "timeout_error")
    else:
        assert client.wire.is_over  # there is nothing to answer


def test_a_head_that_trickles(client: Client) -> None:
    client.send(b"GET / HTTP/1.1\r\na: ")
    assert trickle(client, b"a") < 2 * WAIT_TIMEOUT_SECONDS[Wait.HEAD]
    assert client.refusal() == (408, "timeout_error")


def test_a_body_that_does_not_come(client: Client, clock: Clock) -> None:
    client.send(POST)
    clock.pass_by(WAIT_TIMEOUT_SECONDS[Wait.BODY] - 2 * CHECK_INTERVAL_SECONDS)
    assert client.is_at_work
    clock.pass_by(4 * CHECK_INTERVAL_SECONDS)
    assert client.refusal() == (408, "timeout_error")
    assert not client.is_at_work


@pytest.mark.parametrize("rate", [1, MIN_BYTES_PER_SECOND // 2])
def test_a_body_that_trickles(client: Client, rate: int) -> None:
    client.send(POST)
    assert trickle(client, b" " * rate) < 3 * WAIT_TIMEOUT_SECONDS[Wait.BODY]
    assert client.refusal() == (408, "timeout_error")


def test_a_body_over_a_slow_line_arrives(client: Client, clock: Clock) -> None:
    client.send(POST)
    for _ in range(1_000_000 // MIN_BYTES_PER_SECOND - 1):
        client.send(b" " * MIN_BYTES_PER_SECOND)
        client.connection.cycle.body.clear()  # the application reads it
        clock.pass_by(CHECK_INTERVAL_SECONDS)
        assert client.is_at_work
        assert client.wire.written == b""


def test_a_body_that_the_server_does_not_read_is_not_the_clients_fault(client: Client, clock: Clock) -> None:
    client.send(POST)
    client.send(b" " * 100_000)
    assert client.wire.is_paused
    clock.pass_by(LONG)
    assert client.is_at_work


def test_an_answer_may_take_long(client: Client, clock: Clock) -> None:
    client.send(GET)
    clock.pass_by(LONG)
    assert client.is_at_work
    assert not client.wire.is_over


def test_a_reader_who_stalls(client: Client, clock: Clock) -> None:
    client.send(GET)
    client.wire.unsent = 100_000
    client.connection.pause_writing()
    clock.pass_by(WAIT_TIMEOUT_SECONDS[Wait.READER] - 2 * CHECK_INTERVAL_SECONDS)
    assert not client.wire.is_over
    clock.pass_by(4 * CHECK_INTERVAL_SECONDS)
    assert client.wire.is_over


def test_a_reader_who_is_slow(client: Client, clock: Clock) -> None:
    client.send(GET)
    client.wire.unsent = 1_000_000
    client.connection.pause_writing()
    clock.pass_by(2 * CHECK_INTERVAL_SECONDS)
    while client.wire.unsent > 500_000:
        client.wire.unsent -= MIN_BYTES_PER_SECOND
        clock.pass_by(CHECK_INTERVAL_SECONDS)
        assert not client.wire.is_over
    while not client.wire.is_over:
        client.wire.unsent -= 100
        clock.pass_by(CHECK_INTERVAL_SECONDS)
        assert client.wire.unsent > 0


async def test_a_reader_who_stalls_before_the_last_bytes(client: Client, clock: Clock) -> None:
    client.send(GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
    await client.answer(b"x" * 1000)
    assert client.wire.is_over
    aborted = []
    client.wire.abort = lambda: aborted.append(True)  # type: ignore[method-assign]
    client.wire.unsent = 1000
    clock.pass_by(WAIT_TIMEOUT_SECONDS[Wait.READER] + 4 * CHECK_INTERVAL_SECONDS)
    assert aborted


async def test_an_idle_connection_stays_open_for_a_while(client: Client, clock: Clock) -> None:
    for _ in range(3):
        client.send(GET)
        await client.answer()
        clock.pass_by(connection.KEEP_ALIVE_SECONDS - 2 * CHECK_INTERVAL_SECONDS)
        assert not client.wire.is_over
    clock.pass_by(4 * CHECK_INTERVAL_SECONDS)
    assert client.wire.is_over


async def test_stray_bytes_do_not_keep_a_connection_open(client: Client, clock: Clock) -> None:
    client.send(GET)
    await client.answer()
    assert trickle(client, b"\r\n") < 2 * WAIT_TIMEOUT_SECONDS[Wait.HEAD]


async def test_the_rest_of_a_body_that_was_refused(client: Client, clock: Clock) -> None:
    client.send(POST)
    await client.answer()
    assert trickle(client, b" " * 10 * MIN_BYTES_PER_SECOND) < 2 * WAIT_TIMEOUT_SECONDS[Wait.REST]


async def test_who_sends_it_all_may_ask_again(client: Client, clock: Clock) -> None:
    client.send(POST)
    await client.answer()
    clock.pass_by(WAIT_TIMEOUT_SECONDS[Wait.REST] - 2 * CHECK_INTERVAL_SECONDS)
    client.send(b" " * 1_000_000)
    clock.pass_by(4 * CHECK_INTERVAL_SECONDS)
    client.send(GET)
    assert client.is_at_work


def test_what_was_refused_is_not_read_and_ends(client: Client, clock: Clock) -> None:
    client.send(b"nonsense\r\n\r\n")
    assert client.refusal() == (400, "invalid_request_error")
    written = client.wire.written
    client.send(GET)
    assert client.wire.written == written
    assert client.connection.cycle is None
    clock.pass_by(WAIT_TIMEOUT_SECONDS[Wait.REST] + 2 * CHECK_INTERVAL_SECONDS)
    assert client.wire.is_over


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * MAX_HEAD_BYTES + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\na: " + b"b" * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a" * MAX_HEAD_BYTES + b": b\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (MAX_HEAD_FIELDS + 1) + b"\r\n",
        b"GET / HTTP/1.1\r\n" + (b"a: " + b"b" * 1000 + b"\r\n") * 70 + b"\r\n",
        b"\r\n" * MAX_HEAD_BYTES,
        POST[:-2] + b"transfer-encoding: chunked\r\n\r\n",
    ],
    ids=["path", "value", "name", "fields", "sum", "lines", "two lengths"],
)
@pytest.mark.parametrize("size", [7, 1000, 10**9])
def test_a_head_without_bounds(client: Client, head: bytes, size: int) -> None:
    for start in range(0, len(head), size):
        client.send(head[start : start + size])
    status, kind = client.refusal()
    assert (status, kind) == (400 if b"content-length" in head else 431, "invalid_request_error")


@pytest.mark.parametrize("start", [b"1;", b"0\r\na: "], ids=["chunk", "trailer"])
def test_lines_of_a_body_without_bounds(client: Client, start: bytes) -> None:
    client.send(POST.replace(b"content-length: 1000000", b"transfer-encoding: chunked") + start)
    for _ in range(MAX_HEAD_BYTES // 1000 + 1):
        client.send(b"a" * 1000)
    assert client.refusal() == (431, "invalid_request_error")


def test_a_head_within_bounds(client: Client) -> None:
    client.send(b"GET / HTTP/1.1\r\n" + (b"a: " + b"b" * 500 + b"\r\n") * (MAX_HEAD_FIELDS - 1) + b"c: d\r\n\r\n")
    assert client.is_at_work


def test_fields_after_a_body_are_not_those_of_its_head(client: Client) -> None:
    head = POST.replace(b"content-length: 1000000", b"transfer-encoding: chunked")
    client.send(head + b"1\r\n{\r\n0\r\nx-api-key: secret\r\n\r\n")
    assert b"x-api-key" not in dict(client.connection.scope["headers"])
    assert not client.connection.cycle.more_body


def test_a_body_is_not_the_next_request(client: Client) -> None:
    # What httptools makes of an upgrade: the body is skipped, and what comes next is read as a request.
    client.send(POST.replace(b"\r\n\r\n", b"\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"))
    assert client.refusal() == (400, "invalid_request_error")
    client.send(GET)
    assert client.connection.cycle is None


def test_an_upgrade_without_a_body_is_answered_without_one(client: Client) -> None:
    client.send(GET.replace(b"\r\n\r\n", b"\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"))
    assert client.is_at_work


def test_who_leaves_with_several_requests_leaves_all_of_them(client: Client) -> None:
    client.send(GET)
    first = client.connection.cycle
    client.send(GET + GET)
    assert client.connection.cycle is not first
    client.connection.connection_lost(None)
    assert first.disconnected
    assert first.message_event.is_set()


def test_nonsense_after_a_request_is_no_part_of_its_answer(client: Client) -> None:
    client.send(GET)
    first = client.connection.cycle
    client.send(GET + b"nonsense\r\n\r\n")
    assert client.wire.written == b""
    assert client.wire.is_over
    assert first.disconnected


def test_one_more_takes_the_place_of_who_is_silent_for_longest(
    clock: Clock, state: ServerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 3)
    others = []
    for sent in (GET, b"GET / HT", b""):
        others.append(Client(clock, state))
        if sent:
            others[-1].send(sent)
        clock.pass_by(CHECK_INTERVAL_SECONDS)
    newest = Client(clock, state)
    assert [one.wire.is_over for one in (*others, newest)] == [False, True, False, False]
    newest.send(GET)
    assert newest.is_at_work


def test_one_more_than_all_that_are_busy_is_told_so(
    clock: Clock, state: ServerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 3)
    others = [Client(clock, state) for _ in range(3)]
    for other in others:
        other.send(GET)
    newest = Client(clock, state)
    assert newest.refusal() == (529, "overloaded_error")
    assert b"retry-after: 1\r\n" in newest.wire.written
    assert not any(other.wire.is_over for other in others)


def test_a_server_that_ends_does_not_wait_for_what_it_refused(client: Client) -> None:
    client.send(POST + b" ")
    client.connection._refuse(connection._make_too_large_error())
    client.connection.shutdown()
    assert client.wire.is_over


# Over real sockets


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with replaying(lambda _: "Fine.") as served:
        yield served


def connected(served: Served) -> socket.socket:
    """A client whose system takes little from the server before somebody reads it."""
    host, _, port = served.url.removeprefix("http://").partition(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((host, int(port)))
    return client


def running(served: Served) -> int:
    """Requests that are being answered, without the one that asks."""
    figures = httpx.get(f"{served.url}/metrics", headers={"x-api-key": served.key}).text
    [line] = [line for line in figures.splitlines() if line.startswith("commonweight_http_requests_running ")]
    return round(float(line.split()[1])) - 1


def test_a_client_that_does_not_read_is_given_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CHECK_INTERVAL_SECONDS", 0.02)
    monkeypatch.setitem(WAIT_TIMEOUT_SECONDS, Wait.READER, 0.2)
    asked, size = 300, len(httpx.get(f"{served.url}/openapi.json").content)
    assert asked * size > 16_000_000  # more than systems take
    with connected(served) as client:
        client.sendall(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * asked)
        received = len(client.recv(20))
        while any(running(served) for _ in range(3)):  # between two answers there is none for a moment
            time.sleep(0.01)
        with contextlib.suppress(ConnectionResetError):  # what had been on its way may come first
            while piece := client.recv(65536):
                received += len(piece)
    assert received < asked * size


def test_a_head_that_trickles_is_told_so_and_does_not_disturb(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CHECK_INTERVAL_SECONDS", 0.02)
    monkeypatch.setitem(WAIT_TIMEOUT_SECONDS, Wait.HEAD, 0.5)
    with connected(served) as client:
        client.sendall(b"GET /v1/models HTTP/1.1\r\na: ")
        client.settimeout(0.01)
        while True:
            try:
                answer = client.recv(65536)
                break
            except TimeoutError:
                client.send(b"b")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["type"] == "timeout_error"
    assert httpx.get(f"{served.url}/health").status_code == 200


def test_a_head_that_is_too_large_is_told_so_even_to_who_goes_on_sending(served: Served) -> None:
    with connected(served) as client:
        client.sendall(b"GET / HTTP/1.1\r\na: " + b"b" * 2_000_000)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 431 ")
