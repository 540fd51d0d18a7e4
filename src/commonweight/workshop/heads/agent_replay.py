"""Replay of agents' sessions as a server has them: which ones a guard ends, and what it scores for that."""

from collections.abc import Sequence
from dataclasses import dataclass

from commonweight.charter.principle import Place
from commonweight.guard import Verdict, extract_segments
from commonweight.guard.heads.calibration import estimate_share
from commonweight.workshop.heads.agent_sessions import AgentSession
from commonweight.workshop.heads.evaluate import Evaluator, draw_rows
from commonweight.workshop.heads.figures import (
    Figure,
    at_most,
    make_unmeasured,
    measure_median,
    measure_pooled_share,
)
from commonweight.workshop.heads.measurement import Measurement, Rows

GROUP = "agents"


@dataclass(frozen=True)
class ReplayedRequest:
    """What the screening of one request took."""

    texts: int
    """Different texts in it; one that stands at two places is two."""
    new: int
    """Of these, those that no earlier request of the session had at the place."""
    known: int
    """Scores that were found in memory. A text has one for principles, and one for orders to the model."""
    computed: int


@dataclass(frozen=True)
class ReplayedSession:
    """What became of a session."""

    name: str
    requests: tuple[ReplayedRequest, ...]
    """Up to the one that was refused, or not read."""
    refusal: Verdict | None
    """What ended it: on a request, or on the model's answer to it."""
    is_read: bool
    """False: it ended before, as a request was longer than the model's window."""


async def replay_session(evaluator: Evaluator, session: AgentSession) -> ReplayedSession:
    """Replay a session request by request, all of them as one tenant, until one is refused.

    The model answers each request, and the answer is screened; the session goes on with what is written.
    """
    seen: set[tuple[Place, str]] = set()
    done: list[ReplayedRequest] = []
    for request in session.requests:
        findings = await evaluator.screen(request, f"session {session.name}")
        if findings is None:
            return ReplayedSession(session.name, tuple(done), None, is_read=False)
        texts = {(one.place, one.text) for one in extract_segments(request)}
        done.append(ReplayedRequest(len(texts), len(texts - seen), findings.hits, findings.misses))
        seen |= texts
        if findings.refusal is not None:
            return ReplayedSession(session.name, tuple(done), findings.refusal, is_read=True)
    return ReplayedSession(session.name, tuple(done), None, is_read=True)


async def measure_agents(run: Measurement) -> Rows:
    """Agents' sessions: how many end in a refusal, and what screening finds in memory."""
    names = (
        "agents' sessions that end in a refusal",
        "scores of their texts found in memory",
        "texts of a request of theirs, median",
        "new texts of a request of theirs, median",
        "scores computed for a request of theirs, median",
    )
    if not run.sessions:
        for name in names:
            yield make_unmeasured(GROUP, name, "no sessions: --sessions")
        return
    sessions = draw_rows(run.sessions, run.most, run.seed)
    replayed: list[ReplayedSession] = []
    for number, session in enumerate(sessions, 1):
        replayed.append(await replay_session(run.evaluator, session))
        run.on_progress("Replaying sessions", number / len(sessions))
    requests = [one for session in replayed for one in session.requests]
    yield _measure_refusals(names[0], replayed)
    computed, new = (sum(counts) for counts in zip(*((one.computed, one.new) for one in requests), strict=True))
    pairs = [
        (sum(one.known for one in session.requests), sum(one.known + one.computed for one in session.requests))
        for session in replayed
    ]
    known = measure_pooled_share(GROUP, names[1], pairs)
    yield known.add_note(f"{computed} computed for {new} texts")
    for name, counts in zip(
        names[2:],
        ([one.texts for one in requests], [one.new for one in requests], [one.computed for one in requests]),
        strict=True,
    ):
        yield measure_median(GROUP, name, counts, "count")


def _measure_refusals(name: str, replayed: Sequence[ReplayedSession]) -> Figure:
    """Measure the share of sessions that are refused; the note says what refused which."""
    read = [one for one in replayed if one.is_read]
    unread = len(replayed) - len(read)
    if not read:
        return make_unmeasured(GROUP, name, "no session fits into the model's window")
    refused = [(one.name, one.refusal) for one in read if one.refusal is not None]
    share = estimate_share(len(refused), len(read))
    figure = Figure(GROUP, name, len(read), share, goal=at_most(0.0, 0.0), unread=unread)
    for session, refusal in refused:
        figure = figure.add_note(f"{session}: {refusal.principle} in {refusal.block or refusal.place}")
    return figure
