"""``python -m benchmarks``: measure both servers in turns and print a table for ``docs/benchmarks.md``."""

import argparse
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks import machine, prompts, servers
from benchmarks.measure import Answer, UnfairError, ask, first_model
from benchmarks.table import Row, render
from commonweight.catalog.locate import NoModelError, locate

DECODED = 160
"""Tokens generated after the short prompt."""
GLIMPSED = 16
"""Tokens generated after the long one: enough to show a server that holds its first text back."""
SETTLE = 0.2
"""Seconds between requests, in which the threads of the server that answered last fall asleep."""


def main() -> None:
    """Measure, and print."""
    options = _options()
    # Otherwise the signal would end this process without ending the servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    try:
        print(_report(locate(options.model), 1 if options.quick else options.rounds, warm_up=not options.quick))
    except (NoModelError, servers.StartError, UnfairError) as error:
        sys.exit(f"benchmarks: {error}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--model", help="a GGUF file (default: the starter model)")
    parser.add_argument("--rounds", type=int, default=7, help="times that everything is measured (default: 7)")
    parser.add_argument("--quick", action="store_true", help="one cold round, to see that it works")
    return parser.parse_args()


def _report(model: Path, rounds: int, *, warm_up: bool) -> str:
    bandwidth = machine.read_bandwidth()
    ports = servers.free_port(), servers.free_port()
    commands = servers.commonweight(model, ports[0]), servers.llama_server(model, ports[1], machine.threads())
    with ExitStack() as stack:
        for command, port in zip(commands, ports, strict=True):
            stack.enter_context(servers.running(command, port))
        ours, theirs = _measure(ports, rounds, warm_up=warm_up)
...
