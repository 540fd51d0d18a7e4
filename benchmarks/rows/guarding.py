"""What the guard costs: the same server with it and without."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from benchmarks import fairness, prompts
from benchmarks.bench import PLAIN, Bench, Pair, in_turns
from benchmarks.client import ask, ask_all
from benchmarks.rows.throughput import GLIMPSE_TOKENS, STORY_TOKENS, STREAM_TOKENS, crowd, crowd_rate
from benchmarks.table import Figure
from benchmarks.wire import Answer

PEER = "itself, --guard off"

T = TypeVar("T")


def guard(bench: Bench) -> list[Figure]:
    """Commonweight with its guard on states and without: one stream, 8 streams, first token of a long prompt."""
    if bench.starter is None:
        return []  # the heads that ship were compiled for the starter
    alone: list[tuple[Answer, Answer]] = []
    crowds: list[tuple[list[Answer], list[Answer]]] = []
    long: list[tuple[Answer, Answer]] = []
    with bench.folder() as one, bench.folder() as other:
        pair = Pair(
            bench.commonweight(one, PLAIN, guard="enforce"),
            bench.commonweight(other, PLAIN),
        )
        with bench.running(*pair):
            for turn in range(bench.rounds):
                story = prompts.story(100 + turn)
                alone.append(in_turns(pair, turn, partial(ask, prompt=story, max_tokens=STORY_TOKENS)))
                crowds.append(
                    in_turns(pair, turn, partial(ask_all, prompts=crowd(turn), max_tokens=STREAM_TOKENS))
                )
                session = prompts.session(100 + turn, bench.tokens(2000))
                long.append(in_turns(pair, turn, partial(ask, prompt=session, max_tokens=GLIMPSE_TOKENS)))
    for sides, tokens in [*((s, STORY_TOKENS) for s in alone), *((s, GLIMPSE_TOKENS) for s in long)]:
        fairness.complete(sides, tokens)
        fairness.new(sides)
    for mine, others in crowds:
        fairness.complete([*mine, *others], STREAM_TOKENS)
        fairness.new([*mine, *others])
    same = sum(mine.text == other.text for mine, other in (*alone, *long))
    note = f"the same text from both in {same} of {len(alone) + len(long)} answers to one request"
    return [
        Figure(
            f"guard on: decode, one stream, {STORY_TOKENS} tokens",
            "tok/s",
            *_each(alone, lambda answer: answer.decode_rate),
            peer=PEER,
            more_is_better=True,
            target=0.98,
            notes=[note],
        ),
        Figure(
            f"guard on: {len(crowds[0][0])} streams, {STREAM_TOKENS} tokens each",
            "tok/s",
            *_each(crowds, crowd_rate),
            peer=PEER,
            more_is_better=True,
            target=0.98,
        ),
        Figure(
            f"guard on: first token, new prompt of {long[0][0].input_tokens} tokens",
            "s",
            *_each(long, lambda answer: answer.first_token),
            peer=PEER,
            target=0.98,
        ),
    ]


def _each(rounds: Sequence[tuple[T, T]], figure: Callable[[T], float]) -> tuple[list[float], list[float]]:
    ours, theirs = ([figure(sides[i]) for sides in rounds] for i in (0, 1))
    return ours, theirs
