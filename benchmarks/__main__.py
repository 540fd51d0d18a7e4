"""``python -m benchmarks``: measure both servers in turns and print a report for ``docs/benchmarks.md``."""

import argparse
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks import machine, servers
from benchmarks.measure import Answer, UnfairError, ask
from benchmarks.prompts import Prompt, long, short
from benchmarks.table import Row, render
from commonweight.catalog.locate import NoModelError, locate

STORY_TOKENS = 160
"""Generated after a short prompt."""
GLIMPSE_TOKENS = 16
"""Generated after a long one: enough to show a server that holds its first text back."""
SETTLE = 0.2
"""Seconds before each request, in which the threads of the server that answered last fall asleep."""

Pair = tuple[list[Answer], list[Answer]]
"""What Commonweight and what llama-server answered to the same prompts."""


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Commonweight beside llama-server.")
    parser.add_argument("--model", help="a GGUF file (default: the starter model)")
    parser.add_argument("--rounds", type=int, default=7, help="times that each figure is taken (default: 7)")
    parser.add_argument("--quick", action="store_const", const=1, dest="rounds", help="a single round")
    options = parser.parse_args()
    # Otherwise the signal would end this process without ending the servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("benchmarks: terminated"))
    try:
        print(_report(locate(options.model), options.rounds))
    except (NoModelError, OSError, servers.StartError, UnfairError) as error:
        sys.exit(f"benchmarks: {error}")


def _report(model: Path, rounds: int) -> str:
    size = model.stat().st_size
    bandwidth = machine.read_bandwidth()
    ports = servers.free_port(), servers.free_port()
    ours = servers.commonweight(model, ports[0], machine.threads())
    theirs = servers.llama_server(model, ports[1], machine.threads())
    # Both stay up: an idle one uses no CPU, and whatever else the machine does hits both alike.
    with servers.running(ours, ports[0]), servers.running(theirs, ports[1]):
        stories = _take_turns(ports, map(short, range(rounds + 1)), STORY_TOKENS)
        glimpses = _take_turns(ports, map(long, range(rounds + 1, 2 * rounds + 2)), GLIMPSE_TOKENS)
    return f"""\
- machine: {machine.describe()}
- model: {model.name}, {size / 1e6:.0f} MB
- method: one stream, new prompts, the two servers in turns; rounds: {rounds}

{render(_rows(stories, glimpses))}

Upper bound of decode: {bandwidth / size:.0f} tok/s, for a token reads about the whole file, and memory gives
{bandwidth / 1e9:.1f} GB/s. The commands:

    {servers.shown(sys.orig_argv)}
    {servers.shown(ours)}
    {servers.shown(theirs)}"""


def _rows(stories: Pair, glimpses: Pair) -> list[Row]:
    def first_token(answers: Pair) -> Row:
        ours, theirs = ([answer.first_token for answer in side] for side in answers)
        label = f"first token, new prompt of {answers[0][0].input_tokens} tokens (less is better)"
        return Row(label, "s", 3, ours, theirs)

    ours, theirs = ([answer.tokens_per_second for answer in side] for side in stories)
    decode = Row(f"decode, {STORY_TOKENS} tokens (more is better)", "tok/s", 1, ours, theirs)
    return [decode, first_token(stories), first_token(glimpses)]


def _take_turns(ports: tuple[int, int], prompts: Iterable[Prompt], max_tokens: int) -> Pair:
    """Both servers' answers to all prompts but the first, which warms them up.

    Raises:
        UnfairError: they counted different tokens for the same prompt.
    """
    answers: Pair = [], []
    for turn, prompt in enumerate(prompts):
        for side in (turn % 2, 1 - turn % 2):  # who begins changes every time
            time.sleep(SETTLE)
            answers[side].append(ask(ports[side], prompt, max_tokens))
        ours, theirs = answers[0][-1].input_tokens, answers[1][-1].input_tokens
        if ours != theirs:
            raise UnfairError(f"the same prompt has {ours} tokens for Commonweight, {theirs} for llama-server")
    return answers[0][1:], answers[1][1:]


if __name__ == "__main__":
    main()
