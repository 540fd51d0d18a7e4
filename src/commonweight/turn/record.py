"""Record of a finished turn: origin, usage, outcome and timings.

Usage records, metrics and traces are made of these records, so that all of them count the same things.
"""

import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field

from commonweight.engines.contract import Admitted, EngineEvent, Prefilled, Priority, Step
from commonweight.guard import Findings
from commonweight.messages.request import MessageRequest
from commonweight.messages.response import Message, StopReason, Usage

GAP_BUCKETS_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0)
"""Seconds: upper ends of the classes that waits between tokens are counted in. The last class has no end."""
SAME_ARRIVAL_SECONDS = 0.001
"""Seconds within which tokens came together. They share the wait before the first of them."""


@dataclass(frozen=True)
class Origin:
    """Origin of a turn: tenant, key, request and session."""

    request_id: str = ""
    """What the client knows the request by; of a batch's turn, its own."""
    tenant: str = ""
    key_id: str | None = None
    priority: Priority = "interactive"
    waived: frozenset[str] = frozenset()
    """Principles that the key's owner may set aside, and did."""
    session: str = ""
    """What the client calls the conversation, if anything."""


ANONYMOUS = Origin()


@dataclass
class TokenGaps:
    """Inter-token latencies of an answer, as a histogram: an answer may have very many tokens."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(GAP_BUCKETS_SECONDS) + 1))
    """Waits of at most ``GAP_BUCKETS_SECONDS[i]``, and more than the one before; the last are all longer ones."""
    seconds: float = 0.0
    """All waits together."""

    def add(self, gap: float, tokens: int) -> None:
        """Count ``tokens`` that arrived together after ``gap`` seconds."""
        self.counts[bisect_left(GAP_BUCKETS_SECONDS, gap / tokens)] += tokens
        self.seconds += gap

    def merge(self, other: "TokenGaps") -> None:
        """Add the counts of another one."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.seconds += other.seconds


@dataclass(frozen=True)
class Times:
    """Durations of the stages of a turn, in seconds; None for those that it did not reach."""

    begun_at: float
    """When the request was taken up, since the epoch."""
    prepare: float
    """Until the prompt was rendered."""
    queue: float | None
    """From there until the engine took the job up."""
    prefill: float | None
    """From there until the prompt was read."""
    first_token: float | None
    """From the beginning until the first token was drawn."""
    total: float
    gaps: TokenGaps


@dataclass(frozen=True)
class TurnRecord:
    """One finished turn: completed, refused, failed or cancelled."""

    origin: Origin
    model: str
    """As the client named it."""
    served_by: str
    """The model that answered."""
    usage: Usage
    """Also of turns that were cut off: what they had cost by then. A prompt that was not read costs nothing."""
    stop_reason: StopReason | None
    """None: it did not come to its end."""
    error: str | None
    """The error's type, such as ``api_error``. Without it and without a stop reason, the client left."""
    times: Times
    request: MessageRequest = field(repr=False)
    """Content: to be kept only where an operator says so, and never to be logged."""
    message: Callable[[], Message | None] = field(repr=False)
    """Content, too: the answer as far as it was told, put together when asked for. None: it had not begun."""
    findings: Findings | None = None
    """The guard's; None: there is no guard."""

    @property
    def outcome(self) -> str:
        """The stop reason, ``error`` or ``cancelled``."""
        return "error" if self.error else self.stop_reason or "cancelled"


TurnListener = Callable[[TurnRecord], None]
"""Takes the record of every turn, in the event loop and in the context of the request. It must be quick: what
takes long is to be queued. What it raises is logged, and changes nothing for the client."""


class Stopwatch:
    """Measures the times of one turn. Cheap, because it is called for every token."""

    def __init__(self) -> None:
        self._at = time.time()
        self._begun = time.perf_counter()
        self._prepared: float | None = None
        self._admitted: float | None = None
        self._prefilled: float | None = None
        self._first_token: float | None = None
        self._gaps = TokenGaps()
        self._last = 0.0
        self._gap = 0.0
        self._together = 0

    def mark_prepared(self) -> None:
        """Note that the prompt is rendered."""
        self._prepared = self._now()

    def mark_event(self, event: EngineEvent) -> None:
        """Note an engine event."""
        now = self._now()
        if isinstance(event, Step):
            if self._first_token is None:
                self._first_token = now
            elif self._together and now - self._last < SAME_ARRIVAL_SECONDS:
                self._gap += now - self._last
                self._together += 1
            else:
                self._count()
                self._gap, self._together = now - self._last, 1
            self._last = now
        elif isinstance(event, Admitted):
            self._admitted = now
        elif isinstance(event, Prefilled):
            self._prefilled = now

    def read_times(self) -> Times:
        """Read the times so far."""
        self._count()
        total = self._now()
        return Times(
            begun_at=self._at,
            prepare=total if self._prepared is None else self._prepared,
            queue=_subtract(self._prepared, self._admitted),
            prefill=_subtract(self._admitted, self._prefilled),
            first_token=self._first_token,
            total=total,
            gaps=self._gaps,
        )

    def _count(self) -> None:
        if self._together:
            self._gaps.add(self._gap, self._together)
            self._together = 0

    def _now(self) -> float:
        return time.perf_counter() - self._begun


def _subtract(first: float | None, then: float | None) -> float | None:
    return None if first is None or then is None else then - first


class TurnRecorder:
    """A listener of turns that keeps their records by request id, until they are taken."""

    def __init__(self) -> None:
        self._records: dict[str, TurnRecord] = {}

    def __call__(self, record: TurnRecord) -> None:
        """Keep a record."""
        self._records[record.origin.request_id] = record

    def take(self, request_id: str) -> TurnRecord:
        """Take the record of a finished turn."""
        return self._records.pop(request_id)
