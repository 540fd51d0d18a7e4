"""Our pretraining loop against transformers' ``Trainer`` with AdamW and a Llama of the same size.

    python -m benchmarks.training.compare --text FILE --folder FOLDER [--tokens N] [--only N]

Each run is a process of its own and appends a line to ``runs.jsonl``; runs that are there are not repeated, so
that the comparison can be done in pieces. When all are there, it prints JSON and a table.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from commonweight.workshop.training.settings import TokenizerSettings

if TYPE_CHECKING:
    from benchmarks.training.arms import Outcome, Run
    from commonweight.workshop.data.rows import Split

MUON_RATES = (0.005, 0.01, 0.02)
ADAMW_RATES = (0.00075, 0.0015, 0.003)
SEEDS = (0, 1, 2)
SHORTER = (0.5, 0.65, 0.8)
"""Shares of the tokens that our loop is also given, with whole schedules."""
DOCUMENT_CHARACTERS = 2000
HELD_OUT_EVERY = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--text", type=Path, required=True, help="UTF-8 text to train on")
    parser.add_argument("--folder", type=Path, required=True, help="where data, tokenizer and runs are kept")
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--points", type=int, default=20, help="measurements of a run")
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--only", type=int, default=10**9, help="stop after so many new runs")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_one(options)
        return
    prepare(options.text, options.folder)
    done = read_outcomes(options.folder)
    left = options.only
    while left and (run := choose_run(done, options)) is not None:
        command = [
            sys.executable,
            "-m",
            "benchmarks.training.compare",
            *sys.argv[1:],
            "--run",
            run.model_dump_json(),
        ]
        subprocess.run(command, check=True)
        done = read_outcomes(options.folder)
        print(f"{run.model_dump_json()}: {done[run].curve[-1][1]:.4f} bits per byte", file=sys.stderr)
        left -= 1
    if choose_run(done, options) is None:
        figures = summarise(done, options.tokens)
        print(json.dumps(figures, indent=2))
        print("\n".join(f"| {name} | {value} |" for name, value in figures.items()))


def prepare(text: Path, folder: Path) -> None:
    """Cuts the text into documents, every twentieth held out, and makes a tokenizer of 1,024 tokens."""
    from commonweight.lineage.digests import digest_bytes
    from commonweight.workshop.data.dataset import DatasetWriter
    from commonweight.workshop.data.manifest import SourceOrigin
    from commonweight.workshop.data.rows import Content, Row
    from commonweight.workshop.training.tokenizer import run_tokenizer

    words, data = folder / "words", folder / "data"
    if (words / "chat_template.jinja").exists():
        return
    words.mkdir(parents=True, exist_ok=True)
    data.mkdir(exist_ok=True)
    whole = text.read_text(encoding="utf-8")
    with DatasetWriter(data) as writer:
        for number, start in enumerate(range(0, len(whole), DOCUMENT_CHARACTERS)):
            content = Content("text", text=whole[start : start + DOCUMENT_CHARACTERS])
            split: Split = "validation" if number % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 else "train"
            writer.add(Row(content.compute_row_id(), content, "text", "LicenseRef-Public-Domain", split=split))
        digest = digest_bytes(whole.encode())
        origin = SourceOrigin(name="text", location=text.name, revision=None, sha256=digest, files=1)
        writer.finish([origin], dropped={})
    run_tokenizer(TokenizerSettings(vocab_size=1024), data, words, lambda line: None)


def run_one(options: argparse.Namespace) -> None:
    """Executes one run in this process and appends its outcome."""
    from benchmarks.training.arms import Run, execute, shape_settings

    run = Run.model_validate_json(options.run)
    settings = shape_settings(run, options.context, options.batch_tokens, options.points)
    outcome = execute(run, settings, options.folder / "data", options.folder / "words")
    with (options.folder / "runs.jsonl").open("a", encoding="utf-8") as file:
        file.write(outcome.model_dump_json() + "\n")


def read_outcomes(folder: Path) -> "dict[Run, Outcome]":
    from benchmarks.training.arms import Outcome

    path = folder / "runs.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    outcomes = [Outcome.model_validate_json(line) for line in lines]
    return {outcome.run: outcome for outcome in outcomes}


def choose_run(done: "dict[Run, Outcome]", options: argparse.Namespace) -> "Run | None":
    """The next run that is missing: rates by seeds, then shorter runs at our best rate, then the two speeds."""
    from benchmarks.training.arms import Run

    seeds, tokens = range(options.seeds), options.tokens
    wanted: list[Run] = []
    for seed in seeds:
        wanted += [Run(arm="ours", lr=lr, seed=seed, tokens=tokens) for lr in MUON_RATES]
        wanted += [Run(arm="trainer", lr=lr, seed=seed, tokens=tokens) for lr in ADAMW_RATES]
        wanted.append(Run(arm="ours-adamw-speed", lr=0.003, seed=seed, tokens=tokens // 5))
        wanted.append(Run(arm="trainer-adamw-speed", lr=0.003, seed=seed, tokens=tokens // 5))
    if all(run in done for run in wanted):
        best = choose_best(done, "ours", tokens)
        wanted += [
            Run(arm="ours", lr=best, seed=seed, tokens=int(tokens * share)) for seed in seeds for share in SHORTER
        ]
    return next((run for run in wanted if run not in done), None)


def choose_best(done: "dict[Run, Outcome]", arm: str, tokens: int) -> float:
    """The learning rate whose last bits per byte are lowest, over the seeds."""
    rates: dict[float, list[float]] = {}
    for run, outcome in done.items():
        if run.arm == arm and run.tokens == tokens:
            rates.setdefault(run.lr, []).append(outcome.curve[-1][1])
    return min(rates, key=lambda lr: statistics.mean(rates[lr]))


def summarise(done: "dict[Run, Outcome]", tokens: int) -> dict[str, float | str | None]:
    """The figures of the comparison, each arm at its best learning rate."""
    ours, theirs = (
        [o for r, o in done.items() if (r.arm, r.lr, r.tokens) == (arm, choose_best(done, arm, tokens), tokens)]
        for arm in ("ours", "trainer")
    )
    bits = [[outcome.curve[-1][1] for outcome in outcomes] for outcomes in (ours, theirs)]
    target = statistics.mean(bits[1])
    share_by_curve = statistics.mean(interpolate_tokens(o, target) for o in ours) / tokens
    shorter: dict[int, list[Outcome]] = {}
    for run, outcome in done.items():
        if run.arm == "ours" and run.lr == ours[0].run.lr:
            shorter.setdefault(run.tokens, []).append(outcome)
    enough = [n for n, o in shorter.items() if statistics.mean(x.curve[-1][1] for x in o) <= target]
    share_by_runs = min(enough) / tokens if enough else None
    seconds = statistics.mean(o.seconds for o in theirs)
    wall = statistics.mean(o.seconds for o in shorter[min(enough)]) / seconds if enough else None
    speeds = {
        arm: statistics.median(o.run.tokens / o.cpu_seconds for r, o in done.items() if r.arm == arm)
        for arm in ("ours-adamw-speed", "trainer-adamw-speed")
    }
    return {
        "parameters, ours": ours[0].parameters,
        "parameters, trainer": theirs[0].parameters,
        "best rate, ours": ours[0].run.lr,
        "best rate, trainer": theirs[0].run.lr,
        "bits per byte, ours": round(statistics.mean(bits[0]), 4),
        "bits per byte, trainer": round(target, 4),
        "spread over seeds, ours": round(max(bits[0]) - min(bits[0]), 4),
        "spread over seeds, trainer": round(max(bits[1]) - min(bits[1]), 4),
        "tokens to the trainer's last loss, within whole runs": round(share_by_curve, 3),
        "tokens to the trainer's last loss, by shorter runs": share_by_runs,
        "wall to the trainer's last loss": wall and round(wall, 3),
        "Muon's share of our time": round(statistics.mean(o.muon_share or 0 for o in ours), 3),
        "tokens per CPU second, same model and optimizer, ours to trainer": round(
            speeds["ours-adamw-speed"] / speeds["trainer-adamw-speed"], 3
        ),
    }


def interpolate_tokens(outcome: "Outcome", target: float) -> float:
    """Tokens at which a run's curve first reaches a target; infinite where it does not."""
    before: tuple[int, float] | None = None
    for tokens, bits in outcome.curve:
        if bits <= target:
            if before is None:
                return float(tokens)
            share = (before[1] - target) / (before[1] - bits)
            return before[0] + share * (tokens - before[0])
        before = (tokens, bits)
    return float("inf")


if __name__ == "__main__":
    main()
