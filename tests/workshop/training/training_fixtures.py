"""A small generated corpus, and what is trained on it once for all tests of the room."""

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commonweight.workshop.training.settings import PretrainSettings, TokenizerSettings

NAMES = ["Ada", "Ben", "Cleo", "Dora", "Émile", "Fay", "Gus", "Hana"]
THINGS = ["river", "lamp", "garden", "bridge", "letter", "apple", "mill", "harbour"]
TINY = PretrainSettings(
    layers=2, dim=64, heads=2, kv_heads=1, context=64, batch_tokens=512, steps=24, evaluation_interval=12,
    checkpoint_interval=6,
)  # fmt: skip


@pytest.fixture(scope="session")
def tiny() -> PretrainSettings:
    return TINY


@pytest.fixture(scope="session")
def write_rows() -> Callable[[Path, list[dict[str, Any]]], Path]:
    """Writes a dataset folder."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    turn = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    types = {"messages": turn, "chosen": turn, "rejected": turn, "given": pa.int32()}
    names = ["row_id", "kind", "text", "messages", "chosen", "rejected", "source", "licence", "generator"]
    names += ["principle", "split", "given"]
    schema = pa.schema([(name, types.get(name, pa.string())) for name in names])

    def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        full = []
        for row in rows:
            content = json.dumps([row.get("text"), row.get("messages")])
            kind = "messages" if "messages" in row else "text"
            full.append(
                dict.fromkeys(names)
                | {"row_id": hashlib.sha256(content.encode()).hexdigest()[:16], "kind": kind, "split": "train"}
                | {"source": "generated", "licence": "CC0-1.0", "given": 0}
                | row
            )
        pq.write_table(pa.Table.from_pylist(full, schema=schema), folder / "rows-00000.parquet")
        return folder

    return write


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory, write_rows: Callable[..., Path]) -> Path:
    """300 short texts, 30 of them held out."""
    dice = random.Random(7)
    rows = []
    for i in range(300):
        sentences = [
            f"{dice.choice(NAMES)} found the {dice.choice(THINGS)} by the {dice.choice(THINGS)} in {1800 + i}."
            for _ in range(6)
        ]
        rows.append({"text": " ".join(sentences) + "\n", "split": "validation" if i % 10 == 0 else "train"})
    return write_rows(tmp_path_factory.mktemp("texts"), rows)


@pytest.fixture(scope="session")
def conversations(tmp_path_factory: pytest.TempPathFactory, write_rows: Callable[..., Path]) -> Path:
    """80 conversations of one or two exchanges, some with a system turn."""
    dice = random.Random(8)
    rows = []
    for i in range(80):
        messages = [{"role": "system", "content": "Be brief."}] if i % 3 == 0 else []
        for _ in range(1 + i % 2):
            thing = dice.choice(THINGS)
            messages.append({"role": "user", "content": f"Who found the {thing} in {1800 + i}?"})
            messages.append({"role": "assistant", "content": f"{dice.choice(NAMES)} found the {thing}."})
        rows.append({"messages": messages})
    return write_rows(tmp_path_factory.mktemp("conversations"), rows)


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory, texts: Path) -> Path:
    """A tokenizer folder."""
    from commonweight.workshop.training.tokenizer import run_tokenizer

    folder = tmp_path_factory.mktemp("words")
    run_tokenizer(TokenizerSettings(vocab_size=1024), texts, folder, print)
    return folder


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory, texts: Path, words: Path) -> tuple[Path, dict[str, Any]]:
    """A tiny model folder and what was observed."""
    from commonweight.workshop.training.pretrain import run_pretrain

    folder = tmp_path_factory.mktemp("pretrained")
    return folder, run_pretrain(TINY, texts, words, folder, tmp_path_factory.mktemp("checkpoints"), print)
