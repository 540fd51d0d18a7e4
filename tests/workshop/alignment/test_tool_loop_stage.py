"""The stage ``tool_loop``: rows that training encodes to the very tokens that the server computes."""

import json
import random
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from lesson_rows import ASKED, REFUSED, get_answer, get_starter, list_rows, make_folder, make_row, write_folder
from lesson_rows import write_starter_tokenizer as write_tokenizer

from commonweight.catalog.gguf import Gguf
from commonweight.catalog.model import ModelCard
from commonweight.messages.request import MessageRequest
from commonweight.prompting import Renderer, Tokenizer
from commonweight.workshop.alignment.ledger import read_ledger
from commonweight.workshop.alignment.settings import AlignmentError, ToolLoopSettings
from commonweight.workshop.alignment.tool_loop_stage import run_tool_loop
from commonweight.workshop.alignment.tool_rows import HARMFUL, ToolLoop, ToolLoopWriter
from commonweight.workshop.alignment.tool_table import NAME, read_table
from commonweight.workshop.data.manifest import read_manifest
from commonweight.workshop.data.rows import DataError
from commonweight.workshop.training.dataset import read_rows as read_training_rows
from commonweight.workshop.training.loss_mask import IGNORED, encode_messages
from commonweight.workshop.training.tokenizer import load_tokenizer

pytestmark = pytest.mark.workshop

SETTINGS = ToolLoopSettings(seed=3, max_tokens=900)
SOURCES = [make_row(asked, REFUSED, generator="starter") for asked in ASKED]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loops")
    data = write_folder(folder / "revised", SOURCES)
    run_tool_loop(SETTINGS, data, get_starter(), make_folder(folder / "output"), print)
    return folder / "output"


def make_request(*messages: dict[str, Any], **others: Any) -> MessageRequest:
    return MessageRequest.model_validate({"model": "m", "max_tokens": 1, "messages": list(messages)} | others)


def redraw(line: dict[str, Any]) -> ToolLoop:
    """The conversation of a row, drawn again by what the ledger has of it."""
    writer = ToolLoopWriter(read_table())
    (source,) = (row for row in SOURCES if row.row_id == line["row"])
    dice = random.Random(f"{SETTINGS.seed}:{source.row_id}")
    assert source.content.messages is not None
    return writer.write_harmful(dice.choice(HARMFUL), source.content.messages[0].content, REFUSED, dice)


def test_a_row_has_the_tokens_that_the_server_computes(built: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_tokenizer(tmp_path))
    ledger = read_ledger(built)
    assert ledger is not None
    seen = set()
    with closing(Gguf(get_starter())) as gguf:
        card = ModelCard.from_gguf(gguf)
        server = Renderer(Tokenizer(gguf), card.chat_template, card.generation.system)
        for row in read_training_rows(built, "train", ("messages",)):
            line = ledger[row.row_id]
            assert row.messages is not None
            if line["kind"] == "harmless":
                continue
            loop = redraw(line)
            answer = row.messages[-1]["content"]
            assert (line["kind"], line["task"], answer) == (loop.kind, loop.task, loop.answer)
            ids, labels = encode_messages(row.messages, tokenizer, row.row_id)
            prompt = server.render(make_request(**loop.request)).token_ids
            assert ids[: len(prompt)] == prompt
            assert tokenizer.decode(ids[len(prompt) :]) == f"{answer}<|im_end|>\n"
            # And when the conversation goes on, with the answer in its history.
            history = {"role": "assistant", "content": answer}, {"role": "user", "content": "Thanks. What else?"}
            going_on = loop.request | {"messages": [*loop.request["messages"], *history]}
            assert server.render(make_request(**going_on)).token_ids[: len(ids)] == ids
            calls = [message["content"] for message in row.messages[:-1] if message["role"] == "assistant"]
            learned = tokenizer.decode([label for label in labels if label != IGNORED])
            assert learned == "".join(f"{text}<|im_end|>" for text in (*calls, answer))
            assert len(calls) == (loop.kind != "ordered")
            seen.add(loop.kind)
    assert len(seen) >= 2


def test_both_halves_are_there_with_their_origin(built: Path) -> None:
    rows, ledger = list_rows(built), read_ledger(built)
    assert ledger is not None
    harmless = [row for row in rows if ledger[row.row_id]["kind"] == "harmless"]
    assert len(harmless) == len(rows) - len(harmless) == len(SOURCES)
    assert {(row.source, row.licence, row.generator, row.principle) for row in harmless} == {
        (NAME, "CC0-1.0", None, None)
    }
    others = [row for row in rows if row not in harmless]
    assert {(row.source, row.generator, row.principle) for row in others} == {
        ("bakery", "starter", "honest-bread")
    }
    sources = {source.name: source.sha256 for source in read_manifest(built).sources}
    assert sources == {"bakery": "0" * 64, NAME: read_table().sha256}


def test_the_ledger_holds_no_text(built: Path) -> None:
    text = (built / "ledger.jsonl").read_text()
    assert not any(word in text for word in ("sawdust", "bread with", "help with"))
    assert {"row", "output", "kind", "task", "table"} <= set(json.loads(text.splitlines()[0]))


def test_equal_seeds_give_equal_rows_and_others_do_not(built: Path, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "revised", SOURCES)
    again, other = (make_folder(tmp_path / name) for name in ("again", "other"))
    run_tool_loop(SETTINGS, data, get_starter(), again, print)
    run_tool_loop(SETTINGS.model_copy(update={"seed": 4}), data, get_starter(), other, print)
    assert list_rows(again) == list_rows(built)
    assert (again / "ledger.jsonl").read_bytes() == (built / "ledger.jsonl").read_bytes()
    assert not {row.row_id for row in list_rows(other)} & {row.row_id for row in list_rows(built)}


def test_dropped_rows_are_counted_and_not_written(tmp_path: Path) -> None:
    bad = [
        make_row("Say <|im_end|> twice.", REFUSED),
        make_row("Why? " + "So many words. " * 400, REFUSED),
        make_row(ASKED[0], REFUSED, given=3),
    ]
    good = make_row(ASKED[1], REFUSED)
    data = write_folder(tmp_path / "revised", [*bad, good])
    output = make_folder(tmp_path / "output")
    facts = run_tool_loop(ToolLoopSettings(harmless_share=0, max_tokens=900), data, get_starter(), output, print)
    assert read_manifest(output).dropped == {"no-single-request": 1, "special-token": 1, "too-long": 1}
    (row,) = list_rows(output)
    assert get_answer(row).count(REFUSED) <= 1
    assert facts["harmless"] == 0


def test_bad_input_is_one_sentence(tmp_path: Path) -> None:
    too_long = write_folder(tmp_path / "long", [make_row(ASKED[0], "I won't. " * 400)])
    with pytest.raises(AlignmentError, match=r"No row of long becomes a tool loop \(too-long 1\)"):
        run_tool_loop(SETTINGS, too_long, get_starter(), make_folder(tmp_path / "a"), print)
    measured = write_folder(tmp_path / "measured", SOURCES, evaluation=True)
    with pytest.raises(DataError, match="evaluation set, which trains nothing"):
        run_tool_loop(SETTINGS, measured, get_starter(), make_folder(tmp_path / "b"), print)
    with pytest.raises(DataError, match="no whole dataset folder"):
        run_tool_loop(SETTINGS, make_folder(tmp_path / "none"), get_starter(), make_folder(tmp_path / "c"), print)
