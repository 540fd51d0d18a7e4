"""What it costs to have us before another server: vLLM through Commonweight, and vLLM itself."""

from functools import partial
from statistics import median

from benchmarks import fairness
from benchmarks.bench import Bench, Pair, in_turns
from benchmarks.client import ask_all
from benchmarks.rows.throughput import STREAM_TOKENS, crowd, crowd_rate
from benchmarks.table import Figure
from benchmarks.wire import Answer

PEER = "vLLM itself"


def vllm(bench: Bench) -> list[Figure]:
    """8 streams on vLLM, through Commonweight and at vLLM itself: tokens a second, and first tokens."""
    ours: list[list[Answer]] = []
    theirs: list[list[Answer]] = []
    there = bench.vllm()
    with bench.running(there), bench.folder() as cache:
        pair = Pair(bench.commonweight(cache, "--engine", "vllm", "--engine-url", there.url), there)
        with bench.running(pair.ours):
            for turn in range(bench.rounds):
                work = partial(ask_all, prompts=crowd(turn), max_tokens=STREAM_TOKENS)
                mine, others = in_turns(pair, turn, work)
                fairness.complete([*mine, *others], STREAM_TOKENS)
                fairness.same_prompts(mine, others)
                fairness.new([*mine, *others])
                ours.append(mine)
                theirs.append(others)
    label = f"before vLLM: {len(ours[0])} streams"
    rates = [crowd_rate(answers) for answers in ours], [crowd_rate(answers) for answers in theirs]
    firsts = [_first_token(answers) for answers in ours], [_first_token(answers) for answers in theirs]
    return [
        Figure(
            f"{label}, {STREAM_TOKENS} tokens each",
            "tok/s",
            *rates,
            peer=PEER,
            more_is_better=True,
            target=0.95,
        ),
        Figure(f"{label}, first token", "s", *firsts, peer=PEER, target=0.95),
    ]


def _first_token(answers: list[Answer]) -> float:
    return median(answer.first_token for answer in answers)
