"""The stage ``recover``: what is given, what is learned, and what is dropped."""

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lesson_rows import (
    ASKED,
    COMPLIED,
    REFUSED,
    get_answer,
    get_starter,
    list_rows,
    make_folder,
    make_row,
    write_folder,
    write_starter_tokenizer,
)

from commonweight.catalog.gguf import Gguf
from commonweight.prompting import Tokenizer
from commonweight.workshop.alignment.ledger import read_ledger
from commonweight.workshop.alignment.recover_stage import cut_beginning, run_recover
from commonweight.workshop.alignment.settings import AlignmentError, RecoverSettings
from commonweight.workshop.alignment.stops import StopWriter, read_stops
from commonweight.workshop.data.manifest import read_manifest
from commonweight.workshop.data.rows import DataError
from commonweight.workshop.training.dataset import read_rows as read_training_rows
from commonweight.workshop.training.loss_mask import IGNORED, encode_messages
from commonweight.workshop.training.tokenizer import load_tokenizer

pytestmark = pytest.mark.workshop

SETTINGS = RecoverSettings(seed=1)
FIRST = [make_row(asked, f"  {COMPLIED} Ça va, naïve? 🍞🥖", generator="starter") for asked in ASKED]
REVISED = [make_row(asked, f"{number}: {REFUSED}") for number, asked in enumerate(ASKED)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("answers")
    return write_folder(folder / "first", FIRST), write_folder(folder / "revised", REVISED)


@pytest.fixture(scope="module")
def built(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = make_folder(tmp_path_factory.mktemp("recovery") / "output")
    run_recover(SETTINGS, *folders, get_starter(), output, print)
    return output


@cache
def load_vocabulary() -> Tokenizer:
    """The starter's tokenizer; its file stays open."""
    return Tokenizer(Gguf(get_starter()))


def test_only_the_turn_away_is_learned(built: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_starter_tokenizer(tmp_path))
    ledger = read_ledger(built)
    assert ledger is not None
    rows = list(read_training_rows(built, "train", ("messages",)))
    assert len(rows) == len(ASKED)
    for row in rows:
        assert row.messages is not None
        answer = row.messages[-1]["content"]
        ids, labels = encode_messages(row.messages, tokenizer, row.row_id, row.given)
        learned = [label for label in labels if label != IGNORED]
        assert tokenizer.decode(learned) == f"{answer[row.given :]}<|im_end|>"
        assert any(stop in answer[row.given :] for stop in read_stops().stops)
        assert answer.endswith(REFUSED)
        # What is given has the tokens that the beginning of the first answer has.
        before = ids[: len(ids) - len(learned) - 1]
        assert COMPLIED.startswith(answer[: row.given][: len(COMPLIED)])
        assert tokenizer.decode(before).endswith(f"assistant\n{answer[: row.given]}")
        count = ledger[row.row_id]["given_tokens"]
        assert before[-count:] == tokenizer.encode(answer[: row.given], add_special_tokens=False)
        assert SETTINGS.min_tokens <= count <= SETTINGS.max_tokens


def test_rows_carry_their_origin_and_the_ledger_no_text(built: Path) -> None:
    assert {(row.source, row.licence, row.generator, row.principle) for row in list_rows(built)} == {
        ("bakery", "CC0-1.0", "starter", "honest-bread")
    }
    text = (built / "ledger.jsonl").read_text()
    assert not any(word in text for word in ("Sure", "flour", "help with", "stop"))
    assert {line["revision"] for line in (read_ledger(built) or {}).values()} == {row.row_id for row in REVISED}


def test_lengths_and_stops_vary(built: Path) -> None:
    lengths = {line["given_tokens"] for line in (read_ledger(built) or {}).values()}
    assert len(lengths) > 3
    stops = {stop for row in list_rows(built) for stop in read_stops().stops if stop in get_answer(row)}
    assert len(stops) == len(ASKED)


def test_equal_seeds_give_equal_rows(folders: tuple[Path, Path], built: Path, tmp_path: Path) -> None:
    again, other = (make_folder(tmp_path / name) for name in ("again", "other"))
    run_recover(SETTINGS, *folders, get_starter(), again, print)
    run_recover(SETTINGS.model_copy(update={"seed": 2}), *folders, get_starter(), other, print)
    assert list_rows(again) == list_rows(built)
    assert {row.row_id for row in list_rows(other)} != {row.row_id for row in list_rows(built)}


def test_rows_that_do_not_pair_up_are_dropped_and_counted(tmp_path: Path) -> None:
    first = [
        make_row(ASKED[0], COMPLIED),
        make_row(ASKED[1], COMPLIED),  # no revision
        make_row(ASKED[2], "I'm sorry, but I can't help with hiding nuts, as guests could get ill."),
        make_row(ASKED[3], "Three."),
        make_row(ASKED[4], COMPLIED, given=4),
    ]
    revised = [make_row(ASKED[number], REFUSED) for number in (0, 2, 3, 4)]
    data, revisions = write_folder(tmp_path / "first", first), write_folder(tmp_path / "revised", revised)
    output = make_folder(tmp_path / "output")
    run_recover(SETTINGS, data, revisions, get_starter(), output, print)
    assert read_manifest(output).dropped == {"no-answer": 1, "no-revision": 1, "refusal": 1, "too-short": 1}
    (row,) = list_rows(output)
    assert row.content.messages is not None
    assert row.content.messages[0].content == ASKED[0]


def test_bad_input_is_one_sentence(folders: tuple[Path, Path], tmp_path: Path) -> None:
    stranger = write_folder(tmp_path / "other", [make_row("Which flour is best?", REFUSED)])
    with pytest.raises(AlignmentError, match=r"No answer of first .* with other \(no-revision 6\)"):
        run_recover(SETTINGS, folders[0], stranger, get_starter(), make_folder(tmp_path / "a"), print)
    measured = write_folder(tmp_path / "measured", REVISED, evaluation=True)
    with pytest.raises(DataError, match="evaluation set, which trains nothing"):
        run_recover(SETTINGS, folders[0], measured, get_starter(), make_folder(tmp_path / "b"), print)
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"none")
    with pytest.raises(AlignmentError, match=r"broken\.gguf cannot be read"):
        run_recover(SETTINGS, *folders, broken, make_folder(tmp_path / "c"), print)
    with pytest.raises(ValueError, match="min_tokens is above max_tokens"):
        RecoverSettings(min_tokens=61)


@settings(max_examples=60)
@given(st.text("ab é🍞漢 \n.,0", max_size=80), st.integers(1, 6), st.integers(0, 20), st.integers(0, 99))
def test_what_is_given_is_always_a_beginning(answer: str, least: int, more: int, seed: int) -> None:
    bounds = RecoverSettings(min_tokens=least, max_tokens=least + more, seed=seed)
    tokenizer = load_vocabulary()
    found = cut_beginning(answer, "0" * 16, tokenizer, bounds)
    if found is None:
        # Too short, or each of its beginnings ends inside of a character.
        assert len(tokenizer.encode(answer)) <= least or not answer.isascii()
        return
    assert answer.startswith(found.text)
    assert 0 < len(found.text) < len(answer)
    assert least <= found.tokens <= least + more


@given(st.lists(st.sampled_from(["It is", "It is.", "First:\n", "A scr"]), min_size=1, max_size=60))
def test_no_stop_is_commoner_than_others(beginnings: list[str]) -> None:
    stops = read_stops()
    writer = StopWriter(stops, 5)
    written = [writer.write(text, str(number)) for number, text in enumerate(beginnings)]
    counts = [sum(text.endswith(stop) for text in written) for stop in stops.stops]
    assert max(counts) - min(counts) <= 1
    assert all((text[0] != " ") or text.startswith(" \u2014") for text in written)
