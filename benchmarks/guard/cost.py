"""``python -m benchmarks.guard.cost``: what the guard costs, on over off by turns in one process, and alone."""

import argparse
import asyncio
import random
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import getdoc
from pathlib import Path
from shlex import join

from benchmarks import machine, prompts
from benchmarks.guard.agent_session import write_session
from benchmarks.guard.estimates import estimate_median
from benchmarks.guard.footprint import measure_start
from benchmarks.guard.sides import (
    PLACES,
    Reading,
    Side,
    Sides,
    describe_bundle,
    is_warming,
    open_sides,
    write_request,
)
from commonweight.guard import BundleError, extract_segments
from commonweight.messages.request import MessageRequest
from commonweight.runtime.errors import UserError
from commonweight.workshop.heads.long_texts import cut_long_texts

STORY_TOKENS, STREAM_TOKENS, GLIMPSE_TOKENS = 160, 128, 16
LONG_PROMPT_TOKENS = 2000
READ_TOKENS = 1000
LONG_TEXT_TOKENS = 100_000
GOAL = "<= 1.03, aim 1.01"

Work = Callable[[Side, int], Awaitable[float | None]]
"""Does a piece of work, told by its number; returns the seconds that count, if not all of them do."""


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    name: str
    rounds: int
    values: Mapping[str, str]
    """By column."""


@dataclass
class Run:
    """A run of the measurement."""

    sides: Sides
    rounds: int
    draw: random.Random
    bundle: Path | None
    notes: list[str] = field(default_factory=list)

    async def measure(self, sides: Sequence[Side], work: Work) -> dict[str, list[Reading]]:
        """Measure work on sides, by turns in a random order."""
        found: dict[str, list[Reading]] = {side.name: [] for side in sides}
        for number in range(self.rounds):
            for side in self.draw.sample(sides, len(sides)):
                await side.warm()
                with side.meter.measure():
                    seconds = await work(side, number)
                reading = side.meter.take()
                if seconds is not None:
                    reading = Reading(seconds, reading.cpu, reading.own_cpu)
                found[side.name].append(reading)
        return found

    async def compare(self, name: str, work: Work) -> Line:
        """Compare work with and without the guard: seconds, and the ratios of each round."""
        self.sides.on.records.clear()
        found = await self.measure([self.sides.on, self.sides.off], work)
        records = [one for one in self.sides.on.records if not is_warming(one.origin.tenant)]
        on, off = found["on"], found["off"]
        if refused := sum(one.stop_reason == "refusal" for one in records):
            self.notes.append(f"{name}: does not count, {refused} of {len(records)} turns were refused")
        hits, misses = (sum(getattr(one.findings, what) for one in records) for what in ("hits", "misses"))
        self.notes.append(f"{name}: scores of texts known {hits}, computed {misses}")
        pairs = list(zip(on, off, strict=True))
        return Line(
            name,
            self.rounds,
            {
                "off": f"{estimate_median([one.wall for one in off]).value:.2f} s",
                "on": f"{estimate_median([one.wall for one in on]).value:.2f} s",
                "on over off": str(estimate_median([mine.wall / other.wall for mine, other in pairs])),
                "CPU on over off": str(estimate_median([mine.cpu / other.cpu for mine, other in pairs])),
                "asked": GOAL,
            },
        )


async def one_stream(run: Run) -> list[Line]:
    """One stream: a short prompt and 160 tokens."""

    async def work(side: Side, number: int) -> None:
        await side.answer(_ask(prompts.story(number), STORY_TOKENS), f"story {number}")

    return [await run.compare(f"one stream, {STORY_TOKENS} tokens", work)]


async def streams(run: Run) -> list[Line]:
    """8 streams at once: short prompts and 128 tokens each."""

    async def work(side: Side, number: int) -> None:
        stories = [prompts.story(number * PLACES + i, hero) for i, hero in enumerate(prompts.HEROES)]
        await asyncio.gather(
            *(side.answer(_ask(one, STREAM_TOKENS), f"crowd {number} {i}") for i, one in enumerate(stories))
        )

    return [await run.compare(f"{PLACES} streams, {STREAM_TOKENS} tokens each", work)]


async def first_token(run: Run) -> list[Line]:
    """First token of a new prompt of 2,000 tokens, nearly all of it the user's."""

    async def work(side: Side, number: int) -> float:
        book = prompts.session(number, LONG_PROMPT_TOKENS)
        request = write_request(f"{book.system} {book.messages[0].content}", GLIMPSE_TOKENS)
        return await side.answer(request, f"book {number}")

    return [await run.compare(f"first token, new prompt of {LONG_PROMPT_TOKENS} tokens", work)]


async def agent(run: Run) -> list[Line]:
    """Replay of an agent's session: 12 turns with tools, each request with the whole conversation."""

    async def work(side: Side, number: int) -> None:
        for request in write_session(number):
            await side.answer(request, f"agent {number}", fixed_length=False)

    return [await run.compare("agent replay, 12 turns with tools", work)]


async def cpu(run: Run) -> list[Line]:
    """CPU milliseconds that the guard takes for 1,000 tokens of a prompt, with the model's states and without."""
    pieces = _cut_prose(run, READ_TOKENS * run.rounds, READ_TOKENS)

    async def work(side: Side, number: int) -> None:
        await side.answer(write_request(pieces[number], 0), f"prose {number}")

    sides = run.sides
    found = await run.measure([sides.on, sides.text, sides.off], work)
    lines = []
    for side, name in ((sides.on, "with states"), (sides.text, "without states")):
        pairs = list(zip(found[side.name], found["off"], strict=True))
        both = estimate_median([(mine.cpu - other.cpu) * 1000 for mine, other in pairs])
        own = estimate_median([(mine.own_cpu - other.own_cpu) * 1000 for mine, other in pairs])
        values = {"all processes": both.format("ms"), "the server's own": own.format("ms")}
        lines.append(Line(f"CPU for {READ_TOKENS} tokens, {name}", run.rounds, values))
    return lines


async def long_text(run: Run) -> list[Line]:
    """A text of 100,000 tokens, as input and as a document, read by heads on text; no prompt is computed."""
    [text] = _cut_prose(run, LONG_TEXT_TOKENS, LONG_TEXT_TOKENS)
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": text}}
    lines = []
    for name, content in (("input", text), ("document", [document, {"type": "text", "text": "What is this?"}])):
        body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": content}]}
        segments = extract_segments(MessageRequest.model_validate(body))
        readings: list[Reading] = []
        meter = run.sides.on.meter
        for number in range(run.rounds):
            with meter.measure():
                # A tenant of its own, who has no scores yet.
                await run.sides.text_guard.start_screening(segments, tenant=f"{name} {number}").screen_input()
            readings.append(meter.take())
        wall = estimate_median([one.wall for one in readings])
        own = estimate_median([one.own_cpu for one in readings])
        values = {"wall": wall.format("s"), "the server's own": own.format("s")}
        lines.append(Line(f"a text of {LONG_TEXT_TOKENS} tokens as {name}", run.rounds, values))
    return lines


async def start(run: Run) -> list[Line]:
    """Start and resident memory of a guard in a process of its own: one encoder, and both."""
    lines = []
    for name, names in (("no encoder", ()), ("MiniLM", ("minilm",)), ("both encoders", ("minilm", "use"))):
        found = [await asyncio.to_thread(measure_start, run.bundle, names) for _ in range(run.rounds)]
        seconds = estimate_median([one.seconds for one in found])
        memory = estimate_median([one.resident / 1e6 for one in found])
        values = {"wall": seconds.format("s"), "resident": memory.format("MB")}
        lines.append(Line(f"start of a guard, {name}", run.rounds, values))
    return lines


ROWS: Mapping[str, Callable[[Run], Awaitable[list[Line]]]] = {
    "one-stream": one_stream,
    "streams": streams,
    "first-token": first_token,
    "agent": agent,
    "cpu": cpu,
    "long-text": long_text,
    "start": start,
}


def main() -> None:
    """Measure, and print."""
    options = _make_parser().parse_args()
    try:
        asyncio.run(_measure(options))
    except (BundleError, UserError, OSError) as error:
        sys.exit(f"benchmarks.guard.cost: {error}")


async def _measure(options: argparse.Namespace) -> None:
    print(f"- machine: {machine.describe()}; load {' '.join(_read_load())}")
    print(f"- bundle: {describe_bundle(options.bundle)}")
    print(f"- command: `{join(['python', *sys.orig_argv[1:]])}`\n")
    with tempfile.TemporaryDirectory(prefix="commonweight-guard-cost-") as folder:
        async with open_sides(Path(folder), options.bundle, options.threads) as sides:
            run = Run(sides, options.rounds, random.Random(options.seed), options.bundle)
            for name in options.rows or ROWS:
                for line in await ROWS[name](run):
                    values = "; ".join(f"{column} {value}" for column, value in line.values.items())
                    print(f"- **{line.name}** ({line.rounds} rounds): {values}", flush=True)
    print("\n" + "\n".join(f"- {note}" for note in run.notes))


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.guard.cost",
        description="What the guard costs: the starter with it and without, by turns in one process. Linux.",
        epilog="rows:\n" + "\n".join(f"  {name:12} {getdoc(row)}" for name, row in ROWS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=_parse_positive, default=15, help="of each row (default: 15)")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), metavar="ROW", help="only these")
    parser.add_argument("--bundle", type=Path, metavar="FILE", help="a compiled charter (default: the package's)")
    parser.add_argument(
        "--threads", type=_parse_positive, metavar="N", help="of the engine (default: as serve has)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the order of turns")
    return parser


def _parse_positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def _ask(prompt: prompts.Prompt, max_tokens: int) -> MessageRequest:
    return write_request(prompt.messages[0].content, max_tokens, prompt.system)


def _cut_prose(run: Run, tokens: int, each: int) -> list[str]:
    """Cut texts of about ``each`` tokens from technical prose that is installed, ``tokens`` in all."""
    count = run.sides.on.assistant.tokenize
    pieces = cut_long_texts(lambda text: len(count(text)), tokens // 1000 + 3)
    words = "\n".join(pieces["articles"] + pieces["transcripts"]).split(" ")
    texts: list[str] = []
    at = 0
    for _ in range(tokens // each):
        taken, length = at, 0
        while length < each and at < len(words):
            length += len(count(" ".join(words[at : at + 50])))
            at += 50
        texts.append(" ".join(words[taken:at]))
    return texts


def _read_load() -> list[str]:
    return Path("/proc/loadavg").read_text().split()[:3]


if __name__ == "__main__":
    main()
