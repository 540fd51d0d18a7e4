"""The stages source, filter and mix, from files to dataset folders."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commonweight.lineage.digests import digest_bytes, digest_files
from commonweight.workshop.data.manifest import (
    MANIFEST,
    PROVENANCE,
    Manifest,
    SourceOrigin,
    read_manifest,
    read_provenance,
)
from commonweight.workshop.data.rows import Content, DataError, Message, Row
from commonweight.workshop.data.settings import FilterSettings, MixSettings, SourceSettings

pytestmark = pytest.mark.workshop

SECRET = "quicksilver"


def declare(location: str, **changes: object) -> SourceSettings:
    return SourceSettings.model_validate({"name": "books", "from": location, "licence": "CC0-1.0"} | changes)


def make_source(tmp_path: Path, name: str, rows: list[dict[str, Any]], **changes: object) -> Path:
    """A dataset folder of these rows."""
    from commonweight.workshop.data.source_stage import run_source

    (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    output = tmp_path / name
    output.mkdir(exist_ok=True)
    run_source(declare(f"{name}.jsonl", name=name, **changes), tmp_path, None, output, lambda _: None)
    return output


def number_rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"text": f"Row {number} tells of {number * 7919}."} for number in range(start, start + count)]


def read(folder: Path) -> list[Row]:
    from commonweight.workshop.data.dataset import read_rows

    return list(read_rows(folder))


def read_texts(folder: Path) -> list[str | None]:
    return [row.content.text for row in read(folder)]


def run_filter(tmp_path: Path, inputs: list[Path], exams: list[Path] | None = None, **settings: object) -> Path:
    from commonweight.workshop.data.filter_stage import run_filter as run

    output = tmp_path / "filtered"
    output.mkdir(exist_ok=True)
    run(FilterSettings.model_validate(settings), inputs, exams or [], output, lambda _: None)
    return output


def run_mix(
    tmp_path: Path, inputs: dict[str, Path], report: Callable[[str], None] = lambda _: None, **settings: object
) -> Path:
    from commonweight.workshop.data.mix_stage import run_mix as run

    output = tmp_path / "mixed"
    output.mkdir(exist_ok=True)
    run(MixSettings.model_validate(settings), inputs, output, report)
    return output


def check_manifest(folder: Path) -> Manifest:
    """A manifest that counts what the folder holds."""
    manifest, rows = read_manifest(folder), read(folder)
    assert manifest.rows == len(rows)
    assert manifest.characters == sum(row.content.count_characters() for row in rows)
    counted = Counter((row.source, row.licence, row.generator, row.content.kind, row.split) for row in rows)
    assert counted == {
        (count.source, count.licence, count.generator, count.kind, count.split): count.rows
        for count in manifest.counts
    }
    sources = {source.name: source.sha256 for source in manifest.sources}
    groups = read_provenance(folder)
    assert len({(group.source, group.licence, group.generator, group.kind) for group in groups}) == len(groups)
    for group in groups:
        of_group = [
            row.row_id
            for row in rows
            if (row.source, row.licence, row.generator, row.content.kind)
            == (group.source, group.licence, group.generator, group.kind)
        ]
        assert group.rows == len(of_group)
        assert group.row_ids_digest == digest_bytes("".join(f"{row}\n" for row in sorted(set(of_group))).encode())
        assert group.sha256 == sources[group.source]
    assert sum(group.rows for group in groups) == manifest.rows
    return manifest


def test_rows_of_every_kind_are_written_and_read_back(tmp_path: Path) -> None:
    from commonweight.workshop.data.dataset import SCHEMA, DatasetWriter, read_rows

    question, answer = Message("user", "Why? \U0001f600"), Message("assistant", "")
    contents = [
        Content("text", text="A\nline"),
        Content("messages", messages=(Message("system", "s"), question, answer)),
        Content("messages", messages=(question, Message("assistant", "Sure. No.")), given=5),
        Content("prompt", messages=(question,)),
        Content("preference", messages=(question,), chosen=(answer,), rejected=(answer, question, answer)),
    ]
    rows: list[Row] = []
    for content in contents:
        rows.append(Row(content.compute_row_id(), content, "a", "MIT"))
        rows.append(replace(rows[-1], generator="org/model", principle="honesty", split="validation"))
    with DatasetWriter(tmp_path) as writer:
        for row in rows:
            writer.add(row)
        origin = SourceOrigin(name="a", location="a.txt", revision=None, sha256="0" * 64, files=1)
        writer.finish([origin], dropped={})
    assert list(read_rows(tmp_path)) == rows
    assert list(read_rows(tmp_path, "validation")) == rows[1::2]
    check_manifest(tmp_path)
    assert SCHEMA.names == [
        "row_id",
        "kind",
        "text",
        "messages",
        "chosen",
        "rejected",
        "given",
        "source",
        "licence",
        "generator",
        "principle",
        "split",
    ]


def test_many_rows_go_into_several_shards(tmp_path: Path) -> None:
    from commonweight.workshop.data.dataset import DatasetWriter

    made = make_source(tmp_path, "a", number_rows(2500))
    output = tmp_path / "shards"
    output.mkdir()
    with DatasetWriter(output, shard_rows=1000) as writer:
        for row in read(made):
            writer.add(row)
        writer.finish(read_manifest(made).sources, dropped={})
    assert [path.name for path in sorted(output.glob("*.parquet"))] == [f"rows-0000{n}.parquet" for n in range(3)]
    assert read(output) == read(made)


def test_a_source_becomes_a_dataset_folder_of_equal_bytes_every_time(tmp_path: Path) -> None:
    rows = [*number_rows(30), {"text": " "}, {"text": "own", "licence": "MIT", "generator": "org/model"}]
    one = digest_files(make_source(tmp_path, "a", rows))
    (tmp_path / "a" / "rows-00007.parquet").write_bytes(b"left by a killed run")
    assert digest_files(make_source(tmp_path, "a", rows)) == one
    assert set(one) == {"rows-00000.parquet", MANIFEST, PROVENANCE}
    manifest = check_manifest(tmp_path / "a")
    assert (manifest.rows, manifest.dropped, len(manifest.counts)) == (31, {"empty": 1}, 2)
    assert str(tmp_path) not in (tmp_path / "a" / MANIFEST).read_text()


def test_a_column_that_names_no_generators_is_refused(tmp_path: Path) -> None:
    rows = [{"text": f"row {number}", "generator": f"answer-{number}"} for number in range(1001)]
    assert check_manifest(make_source(tmp_path, "a", rows[:1000])).rows == 1000
    with pytest.raises(DataError, match=r"More than 1,000 different .*: in b, does a column licence or generator"):
        make_source(tmp_path, "b", rows)


def test_a_source_that_fails_leaves_no_whole_folder(tmp_path: Path) -> None:
    made = make_source(tmp_path, "a", number_rows(3))
    with pytest.raises(DataError, match=r"a\.jsonl, line 4: it has an empty licence") as raised:
        make_source(tmp_path, "a", [*number_rows(3), {"text": SECRET, "licence": ""}])
    assert SECRET not in str(raised.value)
    with pytest.raises(DataError, match=r"no whole dataset folder: it has no manifest\.json"):
        read(made)


def test_a_source_of_blank_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows with text"):
        make_source(tmp_path, "a", [{"text": " "}])


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=100)


def run_parquet(tmp_path: Path) -> Path:
    from commonweight.workshop.data.source_stage import run_source

    output = tmp_path / "out"
    output.mkdir(exist_ok=True)
    run_source(declare("set"), tmp_path, None, output, lambda _: None)
    return output


def test_parquet_sources_are_read_with_the_columns_that_count(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    (tmp_path / "set").mkdir()
    for shard in range(2):
        write_parquet(
            tmp_path / "set" / f"{shard}.parquet", [{"messages": turns, "id": shard, "vector": [0.5] * 3}] * 150
        )
    rows = read(run_parquet(tmp_path))
    assert len(rows) == 300
    assert rows[0].content == Content(
        "messages", messages=(Message("user", "Why?"), Message("assistant", "Because."))
    )
    assert check_manifest(tmp_path / "out").sources[0].files == 2


@pytest.mark.parametrize("damage", ["cut", "empty", "scrambled", "text"])
def test_a_torn_parquet_shard_is_named(tmp_path: Path, damage: str) -> None:
    (tmp_path / "set").mkdir()
    shard = tmp_path / "set" / "1.parquet"
    for number in range(2):
        write_parquet(tmp_path / "set" / f"{number}.parquet", number_rows(500))
    data = shard.read_bytes()
    middle = bytes(byte ^ 0x5A for byte in data[4 : len(data) // 2])
    damaged = {
        "cut": data[: len(data) // 2],
        "empty": b"",
        "scrambled": data[:4] + middle + data[len(data) // 2 :],
        "text": b"not a shard at all",
    }
    shard.write_bytes(damaged[damage])
    with pytest.raises(DataError, match=r"The source books: 1\.parquet is torn or no Parquet file"):
        run_parquet(tmp_path)


def test_a_bad_row_of_a_parquet_source_is_named_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    write_parquet(tmp_path / "set" / "0.parquet", [*number_rows(300), {"text": None}])
    with pytest.raises(DataError, match=r"0\.parquet, row 301: it has no text in text"):
        run_parquet(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "gone", "manifest"])
def test_a_damaged_dataset_folder_is_named(tmp_path: Path, damage: str) -> None:
    made = make_source(tmp_path, "a", number_rows(50))
    shard = made / "rows-00000.parquet"
    match damage:
        case "cut":
            shard.write_bytes(shard.read_bytes()[:-20])
            says = r"The shard rows-00000\.parquet of the dataset folder a is torn"
        case "gone":
            shard.unlink()
            says = "The dataset folder a has 0 of its 50 rows"
        case _:
            (made / MANIFEST).write_text("{")
            says = r"The file manifest\.json of the dataset folder a is damaged"
    with pytest.raises(DataError, match=says):
        run_filter(tmp_path, [made])


def test_the_filter_drops_by_reason_and_keeps_the_order(tmp_path: Path) -> None:
    words = " ".join(f"e{number}" for number in range(20))
    like = " ".join(f"w{number}" for number in range(100))
    rows = [
        {"text": value}
        for value in (
            "first row",
            "no",
            "x" * 300 + " y" * 400,
            "First  ROW",
            f"before {words} after",
            like,
            like + " end",
            "last row",
        )
    ]
    exam = make_source(tmp_path, "exam", [{"text": words}], evaluation=True)
    other = make_source(tmp_path, "unrelated", [{"prompt": "What else?"}], evaluation=True)
    made = run_filter(
        tmp_path,
        [make_source(tmp_path, "a", rows[:4]), make_source(tmp_path, "b", rows[4:])],
        [exam, other],
        near_duplicates=True,
        min_characters=3,
        max_characters=1000,
    )
    assert read_texts(made) == ["first row", like, "last row"]
    manifest = check_manifest(made)
    assert manifest.dropped == {
        "contaminated": 1,
        "exact-duplicate": 1,
        "near-duplicate": 1,
        "too-long": 1,
        "too-short": 1,
    }
    assert manifest.contaminated == {"exam": 1, "unrelated": 0}
    assert [source.name for source in manifest.sources] == ["a", "b"]
    (line,) = (made / "contaminated.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "row_id": Content("text", text=f"before {words} after").compute_row_id(),
        "source": "b",
        "sets": ["exam"],
    }
    # Nothing of the evaluation set is in any file of the output.
    assert all(b"e5 e6" not in path.read_bytes() for path in made.iterdir())


def test_the_filter_can_be_told_to_keep_everything(tmp_path: Path) -> None:
    made = make_source(tmp_path, "a", [{"text": "same"}, {"text": "same"}])
    exam = make_source(tmp_path, "exam", [{"text": "same"}], evaluation=True)
    kept = run_filter(tmp_path, [made], [exam], exact_duplicates=False, decontaminate=False)
    assert read_texts(kept) == ["same", "same"]


def test_preferences_between_equal_answers_are_dropped(tmp_path: Path) -> None:
    rows = [{"prompt": "Why?", "chosen": "a", "rejected": "a"}, {"prompt": "Why?", "chosen": "a", "rejected": "b"}]
    assert check_manifest(run_filter(tmp_path, [make_source(tmp_path, "a", rows)])).dropped == {"equal-answers": 1}


def test_a_filter_that_leaves_nothing_says_why(tmp_path: Path) -> None:
    made = make_source(tmp_path, "a", number_rows(5))
    with pytest.raises(DataError, match=r"leaves no row of 5 \(too-short 5\)"):
        run_filter(tmp_path, [made], min_characters=1000)


def test_a_filter_without_inputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no input"):
        run_filter(tmp_path, [])


def test_near_duplicates_of_too_many_rows_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_source(tmp_path, "a", number_rows(11))
    monkeypatch.setattr("commonweight.workshop.data.duplicates.MOST_NEAR_ROWS", 10)
    with pytest.raises(DataError, match="at most 10 rows, and here are 11"):
        run_filter(tmp_path, [made], near_duplicates=True)
    assert check_manifest(run_filter(tmp_path, [made])).rows == 11


def test_an_evaluation_set_trains_nothing(tmp_path: Path) -> None:
    exam = make_source(tmp_path, "exam", number_rows(5), evaluation=True)
    with pytest.raises(DataError, match=r"exam \(1\) is an evaluation set"):
        run_filter(tmp_path, [exam])
    with pytest.raises(DataError, match="exam is an evaluation set"):
        run_mix(tmp_path, {"exam": exam}, weights={"exam": 1})


def test_a_mix_has_its_weights_and_keeps_validation_apart(tmp_path: Path) -> None:
    inputs = {
        "a": make_source(tmp_path, "a", number_rows(400)),
        "b": make_source(tmp_path, "b", number_rows(150, start=10_000)),
        "c": make_source(tmp_path, "c", number_rows(50, start=20_000), licence="MIT", generator="org/model"),
    }
    weights = {"a": 2.0, "b": 1.0, "c": 1.0}
    made = run_mix(tmp_path, inputs, weights=weights, validation=0.1, seed=7)
    manifest, rows = check_manifest(made), read(made)
    training = [row for row in rows if row.split == "train"]
    kept_apart = [row for row in rows if row.split == "validation"]
    longest = max(row.content.count_characters() for row in rows)
    total = sum(row.content.count_characters() for row in training)
    for share in manifest.mix:
        assert share.weight == weights[share.name] / 4
        of_input = [row for row in training if row.source == share.name]
        assert (share.rows, share.characters) == (
            len(of_input),
            sum(row.content.count_characters() for row in of_input),
        )
        assert abs(share.characters - share.weight * total) <= 3 * longest
        times = Counter(row.row_id for row in of_input)
        assert max(times.values()) - min(times.values()) <= 1
        assert abs(share.epochs - np.mean(list(times.values()))) < 0.1
    assert {row.row_id for row in training}.isdisjoint(row.row_id for row in kept_apart)
    assert len({row.row_id for row in kept_apart}) == len(kept_apart)
    assert {row.row_id for row in rows} == {row.row_id for folder in inputs.values() for row in read(folder)}
    assert 30 < len(kept_apart) < 90
    # Turns are taken: the first half has about the weights of the whole.
    half = Counter(row.source for row in training[: len(training) // 2])
    assert 0.4 < half["a"] / (len(training) // 2) < 0.6


def test_mixes_are_equal_for_equal_seeds_only(tmp_path: Path) -> None:
    inputs = {name: make_source(tmp_path, name, number_rows(60, start)) for name, start in (("a", 0), ("b", 900))}
    one = digest_files(run_mix(tmp_path, inputs, weights={"a": 1, "b": 2.5}))
    assert digest_files(run_mix(tmp_path, inputs, weights={"a": 1, "b": 2.5})) == one
    assert digest_files(run_mix(tmp_path, inputs, weights={"a": 1, "b": 2.5}, seed=1)) != one


def test_what_a_mix_keeps_apart_stays_so_in_a_mix_of_it(tmp_path: Path) -> None:
    inputs = {"a": make_source(tmp_path, "a", number_rows(200))}
    first = run_mix(tmp_path, inputs, weights={"a": 1}, validation=0.2)
    apart = {row.row_id for row in read(first) if row.split == "validation"}
    renamed = first.rename(tmp_path / "first")
    second = run_mix(tmp_path, {"a": renamed}, weights={"a": 1}, validation=0.0)
    assert {row.row_id for row in read(second) if row.split == "validation"} == apart != set()


def test_rows_over_the_weight_are_left_out_and_counted(tmp_path: Path) -> None:
    inputs = {
        "a": make_source(tmp_path, "a", number_rows(200)),
        "b": make_source(tmp_path, "b", number_rows(10, start=900)),
    }
    manifest = check_manifest(run_mix(tmp_path, inputs, weights={"a": 1, "b": 1}, max_epochs=2.0, validation=0.0))
    rows = {share.name: share.rows for share in manifest.mix}
    assert rows["b"] == 20
    assert manifest.dropped == {"over-weight": 200 - rows["a"]}


def test_two_sources_of_one_name_are_told_apart(tmp_path: Path) -> None:
    one = make_source(tmp_path, "a", number_rows(5))
    (tmp_path / "other").mkdir()
    other = make_source(tmp_path / "other", "a", number_rows(6))
    with pytest.raises(DataError, match="has a source called a with the digest"):
        run_mix(tmp_path, {"one": one, "other": other}, weights={"one": 1, "other": 1})
    assert check_manifest(run_mix(tmp_path, {"one": one, "same": one}, weights={"one": 1, "same": 1})).rows == 10


def test_mixes_report_what_they_hold(tmp_path: Path) -> None:
    lines: list[str] = []
    run_mix(
        tmp_path, {"a": make_source(tmp_path, "a", number_rows(9))}, lines.append, weights={"a": 1}, validation=0
    )
    assert lines == [
        "a: 100.0% of characters, 1.00 epochs, 9 rows",
        "9 rows for training, 0 for validation",
    ]
