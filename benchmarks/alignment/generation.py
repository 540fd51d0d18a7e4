"""Our generation of answers against transformers' ``generate``, plain and with the prefix's cache reused.

    python -m benchmarks.alignment.generation --gguf F16.gguf --model FOLDER [--rows N] [--rounds N]

Both hold one model, the file in F16 and the folder in float32, and answer the same prompts after the same charter
prefix with 128 tokens. Each run is a process of its own; the three take turns. Rows a second are tokens a second
by 128, since ours may end an answer earlier. Loading does not count, reading the prefix does.
"""

import argparse
import copy
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from commonweight.charter import DEFAULT

ANSWER_TOKENS = 128
PREFIX_CHARACTERS = 4400
"""Of the charter: about a thousand tokens."""
TEMPERATURE, TOP_P = 0.7, 0.95
TOPICS = (
    "rain",
    "bread",
    "bridges",
    "chess",
    "tides",
    "maps",
    "glass",
    "bees",
    "clocks",
    "ferries",
    "paper",
    "salt",
)
FORMS = (
    "Explain {} to a curious child.",
    "Write a short paragraph about the history of {}.",
    "What should a beginner know about {}? Give some details.",
    "Describe in your own words why {} matters to people.",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gguf", type=Path, required=True, help="the model in F16, for our engine")
    parser.add_argument("--model", type=Path, required=True, help="the same model's folder, for transformers")
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--batch", type=int, default=16, help="answers at the same time, of either side")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--arm", choices=sorted(ARMS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        prompts = make_prompts(options.rows)
        tokens, seconds = ARMS[options.arm](options, read_prefix(), prompts)
        print(json.dumps({"rows_per_second": tokens / ANSWER_TOKENS / seconds, "seconds": seconds}))
        return
    rates: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for number in range(options.rounds):
        for arm in ARMS:
            command = [sys.executable, "-m", "benchmarks.alignment.generation", *sys.argv[1:], "--arm", arm]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rates[arm].append(json.loads(done.stdout.splitlines()[-1])["rows_per_second"])
            print(f"round {number + 1}, {arm}: {rates[arm][-1]:.3f} rows/s", file=sys.stderr)
    print(json.dumps(summarise(rates), indent=2))


def make_prompts(rows: int) -> list[str]:
    """Different harmless prompts, as many as rows."""
    made = [form.format(topic) for form in FORMS for topic in TOPICS]
    if rows > len(made):
        raise SystemExit(f"there are {len(made)} prompts")
    return made[:rows]


def read_prefix() -> str:
    """The beginning of the charter that ships."""
    return DEFAULT.read_text(encoding="utf-8")[:PREFIX_CHARACTERS]


def summarise(rates: dict[str, list[float]]) -> dict[str, object]:
    """Medians, ranges, and ratios of ours, round by round."""
    found: dict[str, object] = {
        arm: {"median": statistics.median(own), "low": min(own), "high": max(own)} for arm, own in rates.items()
    }
    for arm in ("plain", "reused"):
        ratios = [ours / other for ours, other in zip(rates["ours"], rates[arm], strict=True)]
        found[f"ours over {arm}"] = {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
    return found


def run_ours(options: argparse.Namespace, prefix: str, prompts: Sequence[str]) -> tuple[int, float]:
    """Tokens and seconds of the stage's own path."""
    import tempfile

    from commonweight.catalog.checksum import compute_sha256
    from commonweight.workshop.alignment.chat import ChatModel, Question, Sampling, ask_all
    from commonweight.workshop.alignment.journal import Journal
    from commonweight.workshop.alignment.settings import ModelSettings
    from commonweight.workshop.data.rows import Message

    settings = ModelSettings(file="F16", parallel=options.batch, batch=len(prompts))
    model = ChatModel(options.gguf, compute_sha256(options.gguf), settings)
    questions = [Question((Message("user", prompt),), seed, prefix) for seed, prompt in enumerate(prompts)]
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "answers.jsonl")
        sampling = Sampling(ANSWER_TOKENS, TEMPERATURE, TOP_P)
        observed = ask_all(model, questions, sampling, journal, lambda _line: None)
    return sum(reply.tokens for reply in journal.replies.values()), float(observed["answer_seconds"])


def run_transformers(
    options: argparse.Namespace, prefix: str, prompts: Sequence[str], *, is_reused: bool
) -> tuple[int, float]:
    """Tokens and seconds of ``generate``, on whole prompts or, with the prefix computed once, on the rest."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model: Any = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    rows = [
        tokenizer.apply_chat_template(
            [{"role": "system", "content": prefix}, {"role": "user", "content": prompt}],
            add_generation_prompt=True,
            return_dict=True,
        )["input_ids"]
        for prompt in prompts
    ]
    common = count_common(rows) if is_reused else 0
    begun = time.monotonic()
    tokens = 0
    with torch.inference_mode():
        read: Any = DynamicCache(config=model.config)
        if is_reused:
            model(torch.tensor([rows[0][:common]]), past_key_values=read, use_cache=True)
        for start in range(0, len(rows), options.batch):
            batch = rows[start : start + options.batch]
            ids, mask = pad_batch(batch, common, tokenizer.pad_token_id)
            # A copy for each batch: generation writes into it.
            cache = copy.deepcopy(read) if is_reused else None
            if cache is not None:
                cache.batch_repeat_interleave(len(batch))
            written = model.generate(
                input_ids=torch.tensor(ids),
                attention_mask=torch.tensor(mask),
                past_key_values=cache,
                do_sample=True,
                temperature=TEMPERATURE,
                top_p=TOP_P,
                top_k=0,
                min_new_tokens=ANSWER_TOKENS,
                max_new_tokens=ANSWER_TOKENS,
                pad_token_id=tokenizer.pad_token_id,
            )
            tokens += len(batch) * (written.shape[1] - len(ids[0]))
    return tokens, time.monotonic() - begun


def count_common(rows: Sequence[Sequence[int]]) -> int:
    """Tokens that all rows begin with."""
    return next(
        (place for place, column in enumerate(zip(*rows, strict=False)) if len(set(column)) > 1),
        min(map(len, rows)),
    )


def pad_batch(rows: Sequence[Sequence[int]], common: int, pad: int) -> tuple[list[list[int]], list[list[int]]]:
    """Rows of one length, and which tokens count; pads stand behind the common beginning."""
    longest = max(map(len, rows))
    ids, mask = [], []
    for row in rows:
        missing = longest - len(row)
        ids.append([*row[:common], *[pad] * missing, *row[common:]])
        mask.append([1] * common + [0] * missing + [1] * (len(row) - common))
    return ids, mask


ARMS: dict[str, Callable[[argparse.Namespace, str, Sequence[str]], tuple[int, float]]] = {
    "ours": run_ours,
    "plain": partial(run_transformers, is_reused=False),
    "reused": partial(run_transformers, is_reused=True),
}

if __name__ == "__main__":
    main()
