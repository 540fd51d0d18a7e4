"""The stage ``pair``: which answers become a preference, which prompts are dropped, and what a critic changes."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lesson_rows import ASKED, COMPLIED, REFUSED, get_starter, list_rows, make_folder, make_row, write_folder

from commonweight.charter import DEFAULT, parse
from commonweight.workshop.alignment.chat import ChatModel
from commonweight.workshop.alignment.conversations import digest_prompt
from commonweight.workshop.alignment.journal import Journal, Reply
from commonweight.workshop.alignment.origins import ModelOrigin
from commonweight.workshop.alignment.pair_stage import run_pair
from commonweight.workshop.alignment.settings import AlignmentError, PairSettings
from commonweight.workshop.data.manifest import read_manifest
from commonweight.workshop.data.rows import DataError, Row

pytestmark = pytest.mark.workshop

BARE = "I won't help with selling food as what it is not."
LOOPING = "I can't help with that bread now. " * 20
CUT = REFUSED[:-1] + " and with"


def pair(folder: Path, rows: list[Row], **fields: Any) -> tuple[list[Row], dict[str, float]]:
    """The pairs of some rows, by rules."""
    data = write_folder(folder / "samples", rows)
    output = make_folder(folder / "output")
    _, facts = run_pair(PairSettings(**fields), data, None, None, None, output, folder / "checkpoints", print)
    return list_rows(output), dict(facts)


def read_lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "output" / "ledger.jsonl").read_text().splitlines()]


def list_texts(row: Row) -> tuple[str, str, str]:
    """Prompt, chosen and rejected answer of a pair."""
    content = row.content
    assert content.messages is not None and content.chosen is not None and content.rejected is not None
    return content.messages[-1].content, content.chosen[0].content, content.rejected[0].content


def test_the_best_and_the_worst_answer_of_a_prompt_become_a_pair(tmp_path: Path) -> None:
    rows = [make_row(ASKED[0], text, generator="starter") for text in (BARE, LOOPING, REFUSED, COMPLIED)]
    (row,), facts = pair(tmp_path, rows)
    assert list_texts(row) == (ASKED[0], REFUSED, LOOPING)
    assert (row.content.kind, row.generator, row.principle, row.licence) == (
        "preference", "starter", "honest-bread", "CC0-1.0",
    )  # fmt: skip
    assert facts == {"prompts": 1, "pairs": 1, "difference": 1.0}
    lines = read_lines(tmp_path)
    assert [(line["role"], line["rank"], line["form"]) for line in lines] == [
        ("chosen", 0, "refusal-with-offer"),
        ("between", 1, "refusal-alone"),
        ("between", 2, "no-refusal"),
        ("rejected", 3, "repetitive"),
    ]
    text = (tmp_path / "output" / "ledger.jsonl").read_text()
    assert not any(word in text for word in ("sawdust", "flour", "help with"))


def test_prompts_without_a_clear_pair_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = [
        make_row(ASKED[0], REFUSED), make_row(ASKED[0], REFUSED.replace("whole grain", "rye")),  # as good
        make_row(ASKED[1], COMPLIED), make_row(ASKED[1], LOOPING),  # none good
        make_row(ASKED[2], REFUSED),  # alone
        make_row(ASKED[3], CUT), make_row(ASKED[3], COMPLIED),  # the good one breaks off
        make_row(ASKED[4], REFUSED), make_row(ASKED[4], COMPLIED),
        make_row(ASKED[5], REFUSED, given=4),
    ]  # fmt: skip
    (row,), facts = pair(tmp_path, rows)
    assert list_texts(row)[0] == ASKED[4]
    assert {key: facts[key] for key in ("too-close", "none-good", "single-answer")} == {
        "too-close": 1, "none-good": 2, "single-answer": 1,
    }  # fmt: skip
    assert read_manifest(tmp_path / "output").dropped == {
        "no-answer": 1, "none-good": 4, "single-answer": 1, "too-close": 2,
    }  # fmt: skip


def test_the_margin_decides(tmp_path: Path) -> None:
    rows = [make_row(ASKED[0], text) for text in (REFUSED, BARE)]
    (row,), _ = pair(tmp_path / "near", rows, margin=0.2)
    assert list_texts(row)[1:] == (REFUSED, BARE)
    with pytest.raises(AlignmentError, match=r"No pair is left of 1 prompts \(too-close 1\)"):
        pair(tmp_path / "far", rows, margin=0.5)


def test_where_answers_are_expected_refusals_are_rejected(tmp_path: Path) -> None:
    (row,), _ = pair(tmp_path, [make_row("How is rye milled?", t) for t in (REFUSED, COMPLIED)], expect="answer")
    assert list_texts(row)[1:] == (COMPLIED, REFUSED)


def test_revisions_stand_against_first_answers_if_asked(tmp_path: Path) -> None:
    revised = write_folder(tmp_path / "revised", [make_row(asked, REFUSED) for asked in ASKED[:3]])
    first = write_folder(
        tmp_path / "first",
        [
            make_row(ASKED[0], COMPLIED, generator="starter", licence="Apache-2.0"),
            make_row(ASKED[1], REFUSED.replace("whole grain", "rye"), generator="starter"),
            make_row(ASKED[4], COMPLIED, generator="starter"),
        ],
    )
    output = make_folder(tmp_path / "output")
    settings = PairSettings(against="first")
    _, facts = run_pair(settings, revised, first, None, None, output, tmp_path / "checkpoints", print)
    (row,) = list_rows(output)
    assert list_texts(row) == (ASKED[0], REFUSED, COMPLIED)
    assert (row.licence, row.generator) == ("Apache-2.0 AND CC0-1.0", "starter")
    assert {key: facts[key] for key in ("too-close", "no-first-answer", "no-revision")} == {
        "too-close": 1, "no-first-answer": 1, "no-revision": 1,
    }  # fmt: skip


def make_critic(settings: PairSettings) -> tuple[ChatModel, ModelOrigin]:
    path = get_starter()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return ChatModel(path, digest, settings), ModelOrigin("starter", ("starter",), ("Apache-2.0",))


def test_a_critic_ranks_by_the_share_of_its_votes(tmp_path: Path) -> None:
    """Goes on from a journal that is whole, so that it is known what was voted."""
    charter = parse(DEFAULT.read_bytes())
    principle = charter.principles[0].id
    rows = [make_row(ASKED[0], text, principle=principle) for text in (REFUSED, BARE, COMPLIED, LOOPING)]
    rows += [make_row(ASKED[1], text, principle=principle) for text in (REFUSED, COMPLIED)]
    settings = PairSettings(ranking="critic", votes=2)
    votes = ["no", "yes", "no", "no", "yes", "yes", "no", "maybe", "", "perhaps"]
    Journal(tmp_path / "checkpoints" / "votes.jsonl").add(
        Reply(number, text, "end_turn", 1) for number, text in enumerate(votes)
    )
    data, output, critic = write_folder(tmp_path / "samples", rows), tmp_path / "output", make_critic(settings)
    run_pair(settings, data, None, critic, charter, make_folder(output), tmp_path / "checkpoints", print)
    (row,) = list_rows(output)
    # The votes and not the rules: the bare refusal has more of them. What is degenerate comes last without any.
    assert list_texts(row)[1] == BARE
    lines = read_lines(tmp_path)
    scores = {
        line["form"]: (line["score"], line["decision"]) for line in lines if line["prompt"] == lines[0]["prompt"]
    }
    assert scores == {
        "refusal-alone": (1.0, "kept"),
        "refusal-with-offer": (0.5, "kept"),
        "no-refusal": (0.0, "kept"),
        "repetitive": (0.0, "kept"),
    }
    assert [line["decision"] for line in lines if line["prompt"] != lines[0]["prompt"]] == ["no-vote", "no-vote"]
    assert {(line["critic"], line["charter"], line["weights"]) for line in lines} == {
        ("starter", charter.sha256, critic[0].digest)
    }
    assert row.principle == principle


def test_a_critic_is_asked_through_the_engine(tmp_path: Path) -> None:
    charter = parse(DEFAULT.read_bytes())
    rows = [make_row(ASKED[0], text, principle=charter.principles[0].id) for text in (REFUSED, LOOPING)]
    settings = PairSettings(ranking="critic", votes=3, temperature=1.5, parallel=1)
    data, output = write_folder(tmp_path / "samples", rows), make_folder(tmp_path / "output")
    checkpoints = tmp_path / "checkpoints"
    try:
        run_pair(settings, data, None, make_critic(settings), charter, output, checkpoints, print)
    except AlignmentError as error:
        assert "too-close 1" in str(error)
    votes = [reply.text for reply in Journal(checkpoints / "votes.jsonl").replies.values()]
    assert len(votes) == 3 and set(votes) <= {"yes", "no"}
    scores = {line["form"]: line["score"] for line in read_lines(tmp_path)}
    assert scores == {"refusal-with-offer": pytest.approx(votes.count("no") / 3, abs=1e-4), "repetitive": 0}


def test_a_principle_that_the_charter_lacks_stops_a_critic(tmp_path: Path) -> None:
    settings = PairSettings(ranking="critic")
    data = write_folder(tmp_path / "samples", [make_row(ASKED[0], REFUSED)])
    with pytest.raises(AlignmentError, match="The charter has no principle honest-bread, which rows name"):
        run_pair(
            settings,
            data,
            None,
            make_critic(settings),
            parse(DEFAULT.read_bytes()),
            make_folder(tmp_path / "output"),
            tmp_path / "checkpoints",
            print,
        )


def test_equal_seeds_give_equal_pairs(tmp_path: Path) -> None:
    rows = [make_row(asked, text) for asked in ASKED for text in (REFUSED, COMPLIED, BARE, "No.", "Never.")]
    first, again = (pair(tmp_path / name, rows, seed=7) for name in ("first", "again"))
    assert first == again
    ledgers = [(tmp_path / name / "output" / "ledger.jsonl").read_bytes() for name in ("first", "again")]
    assert ledgers[0] == ledgers[1]


def test_bad_input_is_one_sentence(tmp_path: Path) -> None:
    measured = write_folder(tmp_path / "measured", [make_row(ASKED[0], REFUSED)], evaluation=True)
    with pytest.raises(DataError, match="evaluation set, which trains nothing"):
        run_pair(PairSettings(), measured, None, None, None, make_folder(tmp_path / "a"), tmp_path, print)
    with pytest.raises(ValueError, match="rank answers to be given by rules"):
        PairSettings(ranking="critic", expect="answer")
    with pytest.raises(ValueError, match="margin"):
        PairSettings(margin=0)


ANSWERS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([REFUSED, BARE, COMPLIED, LOOPING, CUT, "No."])), min_size=1
)


@settings(max_examples=20)
@given(ANSWERS, st.floats(0.05, 1), st.integers(0, 9))
def test_dropped_prompts_are_in_no_row(
    tmp_path_factory: pytest.TempPathFactory, answers: list[tuple[int, str]], margin: float, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("pairs")
    try:
        rows, facts = pair(folder, [make_row(ASKED[n], text) for n, text in answers], margin=margin, seed=seed)
    except AlignmentError:
        rows, facts = [], {}
        assert "chosen" not in (folder / "output" / "ledger.jsonl").read_text()
    kept = {digest_prompt(row.content.messages or ()) for row in rows}
    dropped = {line["prompt"] for line in read_lines(folder) if line["decision"] != "kept"}
    assert not kept & dropped
    assert len(kept) == len(rows) == facts.get("pairs", 0)
    for row in rows:
        _, chosen, rejected = list_texts(row)
        assert chosen in (REFUSED, BARE)
        assert rejected != chosen
