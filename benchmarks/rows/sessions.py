"""First tokens of sessions that share a beginning, go on, or come back."""

from collections.abc import Sequence
from functools import partial

from benchmarks import fairness, prompts
from benchmarks.bench import Bench, Pair, in_turns
from benchmarks.client import ask, ask_all
from benchmarks.prompts import Prompt
from benchmarks.servers import STREAMS, Server
from benchmarks.table import Figure
from benchmarks.wire import Answer

FIRST_WORDS = 8
"""Tokens generated where only the first one counts."""
ANSWER_TOKENS = 32
"""Of an agent's first turn."""
SLACK = 8
"""Tokens by which prompts may differ that quote a server's own answer."""

Crowd = Sequence[Answer]


def shared_prefix(bench: Bench) -> list[Figure]:
    """8 sessions start at the same moment on one new 2k-token system prompt: until all have their first token."""
    rounds: list[tuple[Crowd, Crowd]] = []
    with bench.pair() as pair:
        for turn in range(bench.few):
            crowd = [prompts.session(turn, bench.tokens(2000), question) for question in range(STREAMS)]
            sides = in_turns(pair, turn, partial(ask_all, prompts=crowd, max_tokens=FIRST_WORDS))
            for side in sides:
                fairness.complete(side, FIRST_WORDS)
                fairness.computed_by_one(side)
            fairness.same_prompts(*sides)
            rounds.append(sides)
    prompt = rounds[0][0][0].input_tokens
    label = f"{STREAMS} sessions of {prompt} tokens start together on one new prefix, all first tokens"
    ours, theirs = ([_until_all_began(sides[i]) for sides in rounds] for i in (0, 1))
    return [Figure(label, "s", ours, theirs, target=8, notes=[_work(rounds)])]


def second_turn(bench: Bench) -> list[Figure]:
    """A second turn, alone: 2k tokens and an answer of 32, then an agent's 200 new tokens, or a person's 30."""
    figures = []
    for new, target in ((200, 1), (30, None)):
        rounds = [_second_turns(bench, 1, turn, new) for turn in range(bench.rounds)]
        label = f"second turn of a session, {new} new tokens, first token"
        figures.append(_second_turn_figure(label, [turns for samples in rounds for turns in samples], target))
    return figures


def second_turn_of_many(bench: Bench) -> list[Figure]:
    """The same while 7 other sessions of that size are remembered: 8 take their first turns, then their second."""
    label = f"second turn, {STREAMS - 1} other sessions remembered, first token"
    return [_second_turn_figure(label, _second_turns(bench, STREAMS, 0, 200), 1)]


def returning(bench: Bench) -> list[Figure]:
    """8 sessions of 1.5k tokens come back, all at once, after 8 others ran: until all have their first token.

    Two groups of 8 take turns: each return comes after the other group's turn, and is one sample. Prompts of the
    16 do not fit the 8 slots of llama-server.
    """
    rounds: list[tuple[Crowd, Crowd]] = []
    with bench.pair() as pair:
        tokens = bench.tokens(1500)
        groups = [[prompts.session(group * STREAMS + i, tokens) for i in range(STREAMS)] for group in (0, 1)]
        # Sessions quote what the server itself answered, so from here on each has its own.
        talks = {server.port: [list(group) for group in groups] for server in pair}
        last: dict[tuple[int, int], Crowd] = {}
        for server in pair:
            for group in (0, 1):
                last[server.port, group] = [
                    ask(server, prompt, FIRST_WORDS) for prompt in talks[server.port][group]
                ]
                fairness.new(last[server.port, group])

        def come_back(server: Server, group: int, turn: int) -> Crowd:
            talk = talks[server.port][group]
            for i, answer in enumerate(last[server.port, group]):
                talk[i] = talk[i].then(answer.text, prompts.new_tokens(turn * STREAMS + i, 50))
            last[server.port, group] = ask_all(server, talk, FIRST_WORDS)
            return last[server.port, group]

        for turn in range(bench.few):
            sides = in_turns(pair, turn, partial(come_back, group=turn % 2, turn=turn))
            fairness.complete([*sides[0], *sides[1]], FIRST_WORDS)
            fairness.same_prompts(*sides, slack=SLACK * (turn // 2 + 1))
            rounds.append(sides)
    prompt = rounds[0][0][0].input_tokens
    label = f"{STREAMS} sessions of {prompt} tokens come back after {STREAMS} others, all first tokens"
    ours, theirs = ([_until_all_began(sides[i]) for sides in rounds] for i in (0, 1))
    return [Figure(label, "s", ours, theirs, target=3, notes=[_work(rounds)])]


Turns = tuple[Answer, Answer]
"""A session's first and second turn."""


def _second_turns(bench: Bench, sessions: int, number: int, new: int) -> list[tuple[Turns, Turns]]:
    """Both turns of every session on both servers: first all take their first turn, then all their second, with
    ``new`` tokens."""
    opening = [prompts.session(number * STREAMS + i, bench.tokens(2000)) for i in range(sessions)]
    with bench.pair() as pair:
        firsts = [
            in_turns(pair, i, partial(ask, prompt=prompt, max_tokens=ANSWER_TOKENS))
            for i, prompt in enumerate(opening)
        ]
        seconds = [_go_on(pair, i, prompt, firsts[i], new) for i, prompt in enumerate(opening)]
    for first, second in zip(firsts, seconds, strict=True):
        fairness.complete(first, ANSWER_TOKENS)
        fairness.same_prompts(first[:1], first[1:])
        fairness.new(first)
        fairness.complete(second, FIRST_WORDS)
        fairness.same_prompts(second[:1], second[1:], slack=SLACK)
    return [((f[0], s[0]), (f[1], s[1])) for f, s in zip(firsts, seconds, strict=True)]


def _go_on(
    pair: Pair, number: int, prompt: Prompt, first: tuple[Answer, Answer], new: int
) -> tuple[Answer, Answer]:
    said = dict(zip((server.port for server in pair), first, strict=True))
    question = prompts.new_tokens(number, new)
    return in_turns(
        pair, number, lambda server: ask(server, prompt.then(said[server.port].text, question), FIRST_WORDS)
    )


def _second_turn_figure(label: str, samples: list[tuple[Turns, Turns]], target: float | None) -> Figure:
    ours = [second.first_token for (_, second), _ in samples]
    theirs = [second.first_token for _, (_, second) in samples]
    sides = ("Commonweight", [one for one, _ in samples]), ("llama-server", [other for _, other in samples])
    return Figure(
        label, "s", ours, theirs, target=target, notes=[_second_turn_work(name, side) for name, side in sides]
    )


def _second_turn_work(name: str, side: Sequence[Turns]) -> str:
    computed = [second.prefilled for _, second in side]
    tails = [_tail(turns) for turns in side]
    totals = [second.input_tokens for _, second in side]
    exact = sum(map(int.__eq__, computed, tails))
    new = f"new were {_range(tails)} of {_range(totals)}, exactly those in {exact} of {len(side)} turns"
    return f"{name} computed {_range(computed)} prompt tokens; {new}"


def _tail(turns: Turns) -> int:
    """Tokens of the second prompt that nobody has computed: the last one that was drawn is among them."""
    first, second = turns
    return second.input_tokens - (first.input_tokens + first.output_tokens - 1)


def _until_all_began(crowd: Crowd) -> float:
    return max(answer.first for answer in crowd) - min(answer.sent for answer in crowd)


def _work(rounds: Sequence[tuple[Crowd, Crowd]]) -> str:
    ours, theirs = ([sum(answer.prefilled for answer in sides[i]) for sides in rounds] for i in (0, 1))
    total = [sum(answer.input_tokens for answer in sides[0]) for sides in rounds]
    computed = f"Commonweight computed {_range(ours)}, llama-server {_range(theirs)}"
    return f"of {_range(total)} prompt tokens a round {computed}"


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
