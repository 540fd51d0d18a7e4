"""Rows, models and servers for the tests of alignment stages that run."""

import asyncio
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from commonweight.catalog.checksum import compute_sha256
from commonweight.catalog.gguf import Gguf
from commonweight.catalog.model import ModelCard
from commonweight.catalog.starter import find_starter
from commonweight.charter import Charter, parse
from commonweight.prompting import Renderer, Tokenizer
from commonweight.runtime.assistant import make_vocabulary
from commonweight.workshop.alignment.chat import ChatModel
from commonweight.workshop.alignment.generate_stage import run_generate
from commonweight.workshop.alignment.origins import ModelOrigin
from commonweight.workshop.alignment.settings import GenerateSettings, ModelSettings
from commonweight.workshop.data.dataset import DatasetWriter, read_rows
from commonweight.workshop.data.manifest import SourceOrigin
from commonweight.workshop.data.rows import Content, Message, Row

SMOLLM = "HuggingFaceTB/SmolLM2-135M-Instruct"
STARTER = ModelOrigin("Starter", (SMOLLM,), ("Apache-2.0",))
QUESTIONS = (
    "How do I knead rye dough?",
    "Why does bread need salt?",
    "Name three kinds of flour.",
    "What is a sourdough starter?",
    "How hot is a bread oven?",
    "How long does spelt keep?",
)
SMALL: dict[str, Any] = {"context": 512, "parallel": 2, "batch": 2, "max_tokens": 6, "charter": "bakery.md"}
BAKERY = """\
---
schema: charter/2
id: bakery
version: "1"
licence: CC0-1.0
on_judge_failure: {critical: refuse, high: refuse, medium: allow, low: allow}
---

# A bakery's charter

We bake, and we help others to bake. Nobody is turned away who wants to know how a loaf is made.

## No help with spoiling bread

```yaml
id: spoiling
tier: ethics
severity: medium
applies_to: {input: refuse, output: refuse}
```

### Restricts

Mould, stale loaves, soap in the dough, theft of flour.

### Permits

How yeast works; sourdough, rye and spelt; baking for others; storing bread well.

### Message

I can't help with spoiling bread. I can help with keeping it fresh.
"""


def get_charter() -> Charter:
    return parse(BAKERY.encode())


def make_prompt(text: str, *, principle: str | None = None, licence: str = "CC0-1.0", system: str = "") -> Row:
    """A row of kind ``prompt``."""
    before = (Message("system", system),) if system else ()
    content = Content("prompt", messages=(*before, Message("user", text)))
    return Row(content.compute_row_id(), content, "made", licence, principle=principle)


def make_answered(text: str, answer: str, *, principle: str | None = None) -> Row:
    """A row with an answer of the starter's."""
    content = Content("messages", messages=(Message("user", text), Message("assistant", answer)))
    return Row(content.compute_row_id(), content, "made", "CC0-1.0", SMOLLM, principle)


def write_dataset(folder: Path, rows: Sequence[Row]) -> Path:
    """A dataset folder of these rows."""
    folder.mkdir(parents=True)
    with DatasetWriter(folder) as writer:
        for row in rows:
            writer.add(row)
        origin = SourceOrigin(name="made", location="made.jsonl", revision=None, sha256="0" * 64, files=1)
        writer.finish([origin], dropped={})
    return folder


def list_answers(folder: Path) -> list[str]:
    """The answers of a dataset folder."""
    return [(row.content.messages or ())[-1].content for row in read_rows(folder)]


def make_model(settings: ModelSettings) -> ChatModel:
    """The starter."""
    path = find_starter()
    assert path is not None
    return ChatModel(path, compute_sha256(path), settings)


def generate(data: Path, folder: Path, report: Any = lambda _line: None, **changes: Any) -> Path:
    """Answer the prompts of a dataset folder with the starter."""
    settings = GenerateSettings.model_validate(SMALL | changes)
    output = folder / "output"
    output.mkdir(parents=True, exist_ok=True)
    run_generate(
        settings, data, make_model(settings), STARTER, get_charter(), output, folder / "checkpoints", report
    )
    return output


def _read_template() -> str:
    """What the starter's chat template makes of a user's turn, with a place for it."""
    path = find_starter()
    assert path is not None
    with closing(Gguf(path)) as gguf:
        card, tokenizer = ModelCard.from_gguf(gguf), Tokenizer(gguf)
        renderer = Renderer(tokenizer, card.chat_template, card.generation.system)
        greeting, ids = make_vocabulary(tokenizer, renderer).greeting
        names = {number: name for name, number in tokenizer.special_tokens.items()}  # which are decoded to nothing
        text = "".join(names.get(token) or tokenizer.decode(token).decode() for token in ids)
        text = text.replace(greeting, "{}")
        return text.removesuffix("<|im_start|>assistant\n")  # servers are asked without it


@contextmanager
def serve_far(**fields: Any) -> Iterator[Any]:
    """A server that speaks what vLLM speaks, in a thread of its own."""
    sys.path.append(str(Path(__file__).parents[2] / "engines"))
    try:
        from fake_upstreams import Far
    finally:
        sys.path.pop()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    far = Far(template=_read_template(), **fields)
    running = far.running()
    try:
        asyncio.run_coroutine_threadsafe(running.__aenter__(), loop).result(30)
        yield far
        asyncio.run_coroutine_threadsafe(running.__aexit__(None, None, None), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
