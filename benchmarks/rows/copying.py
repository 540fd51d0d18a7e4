"""Guessing tokens that repeat the prompt, against not guessing."""

from functools import partial
from itertools import takewhile

from benchmarks import fairness, prompts
from benchmarks.bench import PLAIN, Bench, Pair, in_turns
from benchmarks.client import ask
from benchmarks.table import Figure
from benchmarks.wire import Answer

COPIED_TOKENS = 400
STORY_TOKENS = 160
LEAST_COPIED = 0.9
"""Of the answer's characters, up to where it first departs from the file."""


def copying(bench: Bench) -> list[Figure]:
    """Commonweight with and without speculation: editing a file of 300 lines (a copy), and a story (none)."""
    edits: list[tuple[Answer, Answer]] = []
    stories: list[tuple[Answer, Answer]] = []
    edit, rest = prompts.edit()
    with bench.folder() as one, bench.folder() as other:
        pair = Pair(bench.commonweight(one, "--speculation"), bench.commonweight(other, PLAIN))
        with bench.running(*pair):
            for turn in range(bench.rounds):
                # The same file in each round: cached, since only what is generated counts here.
                edits.append(in_turns(pair, turn, partial(ask, prompt=edit, max_tokens=COPIED_TOKENS)))
                story = prompts.story(turn)
                stories.append(in_turns(pair, turn, partial(ask, prompt=story, max_tokens=STORY_TOKENS)))
    for sides in edits:
        fairness.complete(sides, COPIED_TOKENS)
        fairness.same_prompts(sides[:1], sides[1:])
        for answer in sides:
            _check_copy(answer.text, rest)
    for sides in stories:
        fairness.complete(sides, STORY_TOKENS)
        fairness.same_prompts(sides[:1], sides[1:])
    return [
        _figure(f"editing a file of {prompts.FILE_LINES} lines: {COPIED_TOKENS} tokens, a copy", edits, 1.5),
        _figure(f"a story: {STORY_TOKENS} tokens, no copy", stories, 0.97),
    ]


def _figure(label: str, rounds: list[tuple[Answer, Answer]], target: float) -> Figure:
    ours, theirs = ([sides[i].decode_rate for sides in rounds] for i in (0, 1))
    same = sum(one.text == other.text for one, other in rounds)
    note = (
        f"prompt of {rounds[0][0].input_tokens} tokens; the same text from both in {same} of {len(rounds)} rounds"
    )
    return Figure(
        label, "tok/s", ours, theirs, f"itself, {PLAIN}", more_is_better=True, target=target, notes=[note]
    )


def _check_copy(text: str, rest: str) -> None:
    copied = sum(1 for _ in takewhile(bool, map(str.__eq__, text, rest))) / len(text)
    if copied < LEAST_COPIED:
        raise fairness.UnfairError(f"only the first {copied:.0%} of the answer copy the file: {text[:60]!r}")
