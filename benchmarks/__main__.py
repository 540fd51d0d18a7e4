"""``python -m benchmarks``: measure row by row, and print a report for ``docs/benchmarks.md``."""

import argparse
import signal
import sys
import tempfile
import time
from http.client import HTTPException
from inspect import getdoc
from pathlib import Path
from shlex import join
from statistics import median

from benchmarks import machine
from benchmarks.bench import Bench
from benchmarks.fairness import UnfairError
from benchmarks.rows import ROWS
from benchmarks.servers import StartError
from benchmarks.table import Figure, render
from benchmarks.weights import requantised
from commonweight.catalog.reference import ModelNotFoundError
from commonweight.catalog.resolve import resolve

QUICK = 0.25
"""Length of long prompts in a quick run."""


def main() -> None:
    """Measure, and print."""
    options = _parser().parse_args()
    # Otherwise the signal would end this process without ending the servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("benchmarks: terminated"))
    try:
        with tempfile.TemporaryDirectory(prefix="commonweight-bench-") as folder:
            failures = _measure(_bench(options, Path(folder)), options.only or list(ROWS))
    except (ModelNotFoundError, OSError) as error:
        sys.exit(f"benchmarks: {error}")
    except KeyboardInterrupt:
        sys.exit("benchmarks: interrupted")
    sys.exit(1 if failures else 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="The same work on Commonweight and on others, in one run, as ratios. Nothing else should run.",
        epilog="rows:\n" + "\n".join(f"  {name:17} {_summary(name)}" for name in ROWS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model", help="a GGUF file, measured as it is (default: the starter model, requantised to Q8_0)"
    )
    parser.add_argument(
        "--only", action="append", choices=list(ROWS), metavar="ROW", help="measure this row; may repeat"
    )
    parser.add_argument(
        "--rounds",
        type=_positive,
        default=5,
        help="times each figure is taken; half of it for long ones (default: 5)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="one round with long prompts a quarter as long: shows that it works"
    )
    return parser


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def _summary(name: str) -> str:
    return (getdoc(ROWS[name]) or "").partition("\n")[0]


def _bench(options: argparse.Namespace, folder: Path) -> Bench:
    model = resolve(options.model)
    rounds, scale = (1, QUICK) if options.quick else (options.rounds, 1.0)
    if options.model:
        return Bench(model, None, rounds, scale)
    return Bench(requantised(model, folder, machine.threads()), model, rounds, scale)


def _measure(bench: Bench, names: list[str]) -> list[str]:
    """Print the report; what could not be compared is returned, too."""
    started = time.monotonic()
    bandwidth = machine.read_bandwidth()
    figures: dict[str, list[Figure]] = {}
    failures: list[str] = []
    for name in names:
        print(f"{time.monotonic() - started:6.0f} s  {name}: {_summary(name)}", file=sys.stderr, flush=True)
        # A row that fails must not take the minutes of all others with it.
        try:
            figures[name] = ROWS[name](bench)
        except (UnfairError, StartError, RuntimeError, OSError, HTTPException) as error:
            failures.append(f"{name}: {error}")
        for line in figures.get(name, failures[-1:]):
            print(f"          {line}", file=sys.stderr, flush=True)
    size = bench.model.stat().st_size
    made = f", made from {bench.starter.name}" if bench.starter else ""
    print(f"- machine: {machine.describe()}")
    print(f"- model: {bench.model.name}, {size / 1e6:.0f} MB{made}")
    minutes = (time.monotonic() - started) / 60
    print(f"- rounds: {bench.rounds} ({bench.few} of what takes minutes); all of it took {minutes:.0f} minutes")
    print(f"- {_bound(bandwidth, size, figures.get('decode'))}\n")
    print(render([figure for row in figures.values() for figure in row], failures))
    print("\nThe commands:\n")
    for command in (join(["python", *sys.orig_argv[1:]]), *bench.commands):
        print(f"    {command}")
    return failures


def _bound(bandwidth: float, size: int, decode: list[Figure] | None) -> str:
    """What memory allows a single stream: a token reads about the whole file."""
    bound = bandwidth / size
    reached = f", of which decode reaches {median(decode[0].ours) / bound:.0%}" if decode else ""
    return f"upper bound of decode: {bound:.0f} tok/s, since memory gives {bandwidth / 1e9:.1f} GB/s{reached}"


if __name__ == "__main__":
    main()
