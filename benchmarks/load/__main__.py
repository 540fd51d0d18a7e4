"""``python -m benchmarks.load``: load a server for minutes, check every answer, and print a report.

``replay`` asks a server whose engine process plays back the questions: all that is tried is the server. ``model``
asks the real engine and the starter model, for streams, whole answers and batches at the same time.
"""

import argparse
import asyncio
import csv
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import join
from statistics import median

import httpx
import psutil

from benchmarks import machine, servers
from benchmarks.load.clients import Crowd, Tally
from benchmarks.load.memory import Memory
from benchmarks.load.server import PlaybackEngine
from benchmarks.servers import Server
from commonweight.engines.llama import LlamaEngine

OPERATOR = "sk-load-operator"
SHARES: dict[str, Mapping[str, float]] = {
    "replay": {"north": 0.4, "east": 0.3, "south": 0.2, "west": 0.1},
    "model": {"north": 0.625, "east": 0.25, "batches": 0.125},
}
"""Tenants, and which part of the clients is theirs."""
PACKAGES = ("commonweight", "llama-cpp-python")
GRACE = 20.0
"""Seconds after the last answer in which the server must have put everything away."""


def main() -> None:
    """Load, check, and print; 1 if anything was wrong."""
    options = _parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="commonweight-load-") as name:
        sys.exit(1 if _run(options, Path(name)) else 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.load",
        description="Many clients at once: nothing lost or crossed, bounded memory, fair shares.",
    )
    parser.add_argument(
        "engine", choices=list(SHARES), help="play back questions, or compute with the starter model"
    )
    parser.add_argument("--clients", type=int, help="at once (default: 200 replay, 16 model)")
    parser.add_argument("--places", type=int, help="requests that run at once (default: 40 replay, 8 model)")
    parser.add_argument("--seconds", type=float, default=120, help="how long new requests are sent (default: 120)")
    return parser


def _run(options: argparse.Namespace, folder: Path) -> list[str]:
    is_replay = options.engine == "replay"
    clients = options.clients or (200 if is_replay else 16)
    server = _server(options.engine, options.places or (40 if is_replay else 8), folder)
    tallies = [
        Tally(tenant, _key(tenant, folder), max(1, round(clients * share)))
        for tenant, share in SHARES[options.engine].items()
    ]
    with servers.running(server) as _:
        [process] = [one for one in psutil.Process().children() if one.cmdline()[1:] == server.command[1:]]
        [engine] = [
            one for one in process.children() if {LlamaEngine.worker, PlaybackEngine.worker} & {*one.cmdline()}
        ]
        memories = [Memory("server", process), Memory("engine process", engine)]
        asyncio.run(_load(server, tallies, memories, options.seconds, is_replay=is_replay))
        wrong = [f"{tally.tenant}: {text}" for tally in tallies for text in tally.wrong]
        figures, left = asyncio.run(_left_over(server))
        wrong += left
    wrong += _unaccounted(tallies, folder)
    print(f"- machine: {machine.describe(PACKAGES)}")
    print(f"- command: `{join(['python', *sys.orig_argv[1:]])}`, which ran `{server}`\n")
    print("| tenant | clients | answered | tokens | tokens in time | first text, median (highest) | wrong |")
    print("|---|--:|---|--:|--:|--:|--:|")
    for tally in tallies:
        print(_row(tally))
    print(f"\nJain's index of the shares: {_jain([tally.in_time for tally in tallies if _asks(tally)]):.4f}")
    waits = (f"{name} {_mean(figures, name):.2f} s" for name in ("queue", "prefill", "first_token"))
    print(f"\nAs the server has it, on average: {', '.join(waits)}\n")
    print("| memory in MB | at the start | warm | highest | at the end | a minute, once warm |")
    print("|---|--:|--:|--:|--:|--:|")
    for memory in memories:
        print(memory)
    print("\n" + "\n".join(wrong or ["Nothing was lost, crossed, cut or repeated; nothing was left over."]))
    return wrong


def _server(engine: str, places: int, folder: Path) -> Server:
    module = "benchmarks.load.server" if engine == "replay" else "commonweight"
    port = servers.free_port()
    command = [
        *(sys.executable, "-m", module, "serve", "--port", str(port), "--parallel", str(places)),
        *("--data", str(folder / "data"), "--api-key", OPERATOR, "--log-level", "warning"),
        *("--cache-disk", "0", "--cache-ram", "128MiB"),
        *(("--guard", "off") if engine == "replay" else ()),  # which has no states to show
    ]
    root = str(Path(__file__).parents[2])
    return Server("Commonweight", command, port, environment={"PYTHONPATH": root})


def _key(tenant: str, folder: Path) -> str:
    return _commonweight("keys", "create", tenant, folder=folder).strip()


def _commonweight(*arguments: str, folder: Path) -> str:
    command = [sys.executable, "-m", "commonweight", *arguments, "--data", str(folder / "data")]
    return subprocess.run(command, capture_output=True, check=True, text=True, env=dict(os.environ)).stdout


def _asks(tally: Tally) -> bool:
    """Whether its clients want their answers now. Batches have no share while others ask."""
    return tally.tenant != "batches"


async def _load(
    server: Server, tallies: Sequence[Tally], memories: Sequence[Memory], seconds: float, *, is_replay: bool
) -> None:
    crowd = Crowd(f"http://127.0.0.1:{server.port}", seed=0)
    watching = [asyncio.create_task(memory.watch()) for memory in memories]
    end = time.monotonic() + seconds
    async with asyncio.TaskGroup() as group:
        for tally in tallies:
            answered = crowd.replayed if is_replay else crowd.held
            ask = answered if _asks(tally) else crowd.batch
            for _ in range(tally.clients):
                group.create_task(crowd.ask_until(end, tally, ask))
    await crowd.close()
    await asyncio.sleep(5)  # what the last clients have left behind is put away, and seen
    for task in watching:
        task.cancel()


async def _left_over(server: Server) -> tuple[dict[str, float], list[str]]:
    """The server's figures, and what it still holds though nobody asks any more."""
    expected = {
        'commonweight_engine_jobs{state="running"}': 0.0,
        'commonweight_engine_jobs{state="waiting"}': 0.0,
        "commonweight_engine_kv_cells_used": 0.0,
        "commonweight_http_requests_running": 1.0,  # this one
    }
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as http:
        deadline = time.monotonic() + GRACE
        while True:
            text = (await http.get("/metrics", headers={"x-api-key": OPERATOR})).text
            lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
            figures = {name: float(value) for name, _, value in lines}
            wrong = [f"{name} is {figures[name]}" for name, value in expected.items() if figures[name] != value]
            if not wrong or time.monotonic() > deadline:
                return figures, wrong
            await asyncio.sleep(0.5)


def _unaccounted(tallies: Sequence[Tally], folder: Path) -> list[str]:
    """Requests and tokens that the ledger does not know of, or knows of though nobody sent them."""
    rows = csv.DictReader(io.StringIO(_commonweight("usage", "--by", "tenant", "--csv", folder=folder)))
    told = {row["tenant"]: row for row in rows}
    wrong = []
    for tally in tallies:
        row = told[tally.tenant]
        if int(row["requests"]) != tally.done.total() + len(tally.wrong):
            wrong.append(
                f"{tally.tenant} sent {tally.done.total()} requests, and the ledger has {row['requests']}"
            )
        # Of an answer that was left, only the server knows how long it was.
        if int(row["output_tokens"]) < tally.tokens:
            wrong.append(f"{tally.tenant} got {tally.tokens} tokens, and the ledger has {row['output_tokens']}")
    return wrong


def _row(tally: Tally) -> str:
    answered = ", ".join(f"{number:,} {kind}" for kind, number in sorted(tally.done.items()))
    first = f"{median(tally.first):.2f} s ({max(tally.first):.2f})" if tally.first else ""
    tokens = f"{tally.tokens:,} | {tally.in_time:,}"
    return f"| {tally.tenant} | {tally.clients} | {answered} | {tokens} | {first} | {len(tally.wrong)} |"


def _mean(figures: Mapping[str, float], name: str) -> float:
    """Seconds of a histogram of the server's, of what was interactive."""
    total, count = (
        figures[f'commonweight_{name}_seconds_{part}{{priority="interactive"}}'] for part in ("sum", "count")
    )
    return total / count


def _jain(shares: Sequence[float]) -> float:
    """1 where all are equal, 1/n where one has everything (Jain, Chiu and Hawe, 1984)."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 0.0


if __name__ == "__main__":
    main()
