"""Sources: files of every kind found, checked and read; what is torn, missing or changed is named."""

import gzip
import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonweight.lineage.digests import digest_json
from commonweight.workshop.data.readers import SourceFile, read_text_rows
from commonweight.workshop.data.rows import DataError, Row
from commonweight.workshop.data.settings import SourceSettings
from commonweight.workshop.data.sources import locate_source, read_source

SECRET = "quicksilver"
COMMIT = "a" * 40


def declare(location: str, **changes: object) -> SourceSettings:
    return SourceSettings.model_validate({"name": "books", "from": location, "licence": "CC0-1.0"} | changes)


def read(
    settings: SourceSettings, root: Path, data_root: Path | None = None, dropped: Counter[str] | None = None
) -> list[Row]:
    source = locate_source(settings, root, data_root, root / "downloads", print)
    return list(read_source(settings, source, Counter() if dropped is None else dropped))


def write_lines(path: Path, *lines: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_folder_of_texts_is_read_in_order_of_names(tmp_path: Path) -> None:
    write_lines(tmp_path / "texts" / "b.md", "second")
    write_lines(tmp_path / "texts" / "a" / "c.txt", "first")
    write_lines(tmp_path / "texts" / ".hidden" / "d.txt", "hidden")
    write_lines(tmp_path / "texts" / "notes.pdf", "another type")
    settings = declare("texts")
    rows = read(settings, tmp_path)
    assert [row.content.text for row in rows] == ["first\n", "second\n"]
    assert {(row.source, row.licence, row.generator, row.split) for row in rows} == {
        ("books", "CC0-1.0", None, "train")
    }
    source = locate_source(settings, tmp_path, None, tmp_path, print)
    files = {name: digest(tmp_path / "texts" / name) for name in ("a/c.txt", "b.md")}
    assert source.sha256 == digest_json(files)


def test_where_rows_lie_texts_beside_them_are_not_read(tmp_path: Path) -> None:
    write_lines(tmp_path / "set" / "README.md", "About this set.")
    write_lines(tmp_path / "set" / "rows.jsonl", {"text": "a row"})
    assert [row.content.text for row in read(declare("set"), tmp_path)] == ["a row"]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_json_lines_are_read_plain_and_compressed(tmp_path: Path, name: str) -> None:
    write_lines(tmp_path / name, "\ufeff" + json.dumps({"text": "one"}), "", {"text": "two"})
    assert [row.content.text for row in read(declare(name), tmp_path)] == ["one", "two"]


def test_lines_of_a_text_are_prompts_if_the_recipe_says_so(tmp_path: Path) -> None:
    write_lines(tmp_path / "asked.txt", "Why?", "", "  How?")
    rows = read(declare("asked.txt", format="prompts"), tmp_path)
    assert [[message.content for message in row.content.list_messages()] for row in rows] == [["Why?"], ["How?"]]


def test_columns_may_be_called_otherwise(tmp_path: Path) -> None:
    write_lines(tmp_path / "q.jsonl", {"question": "Why?", "text": "not this", "terms": "MIT"})
    fields = {"prompt": "question", "licence": "terms"}
    (row,) = read(declare("q.jsonl", format="prompts", fields=fields), tmp_path)
    assert [message.content for message in row.content.list_messages()] == ["Why?"]
    assert row.licence == "MIT"


def test_what_a_row_says_of_itself_wins(tmp_path: Path) -> None:
    own = {"licence": "MIT", "generator": "org/other", "principle": "honesty"}
    write_lines(tmp_path / "r.jsonl", {"text": "a", **own}, {"text": "b"}, {"text": "c", "generator": None})
    rows = read(declare("r.jsonl", generator="org/model"), tmp_path)
    assert [(row.licence, row.generator, row.principle) for row in rows] == [
        ("MIT", "org/other", "honesty"),
        ("CC0-1.0", "org/model", None),
        ("CC0-1.0", "org/model", None),
    ]


def test_categories_of_a_source_are_principles_of_a_charter(tmp_path: Path) -> None:
    lines = [{"text": "a", "cat": "Lies"}, {"text": "b", "cat": "Other"}, {"text": "c"}]
    write_lines(tmp_path / "a.jsonl", *lines)
    fields = {"principle": "cat"}
    rows = read(declare("a.jsonl", fields=fields, principles={"Lies": "honesty"}), tmp_path)
    assert [row.principle for row in rows] == ["honesty", None, None]
    assert [row.principle for row in read(declare("a.jsonl", fields=fields), tmp_path)] == [
        "Lies",
        "Other",
        None,
    ]


def test_rows_of_categories_that_are_left_out_are_counted(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", {"text": "a", "cat": "Lies"}, {"text": "b", "cat": "Other"}, {"text": "c"})
    settings = declare("a.jsonl", fields={"principle": "cat"}, principles={"Lies": "honesty"}, leave_out=["Other"])
    dropped: Counter[str] = Counter()
    rows = read(settings, tmp_path, dropped=dropped)
    assert [(row.content.text, row.principle) for row in rows] == [("a", "honesty"), ("c", None)]
    assert dropped == {"left-out": 1}


def test_a_licence_in_the_other_spelling_counts_unless_the_recipe_names_another_column(tmp_path: Path) -> None:
    write_lines(tmp_path / "r.jsonl", {"text": "a", "license": "CC-BY-NC-4.0"})
    assert [row.licence for row in read(declare("r.jsonl"), tmp_path)] == ["CC-BY-NC-4.0"]
    assert [row.licence for row in read(declare("r.jsonl", fields={"licence": "terms"}), tmp_path)] == ["CC0-1.0"]
    write_lines(tmp_path / "r.jsonl", {"text": "a", "license": None})
    with pytest.raises(DataError, match="has an empty licence"):
        read(declare("r.jsonl"), tmp_path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="The source books cannot be read: File name too long"):
        read(declare("a" * 300 + ".txt"), tmp_path)


def test_the_first_rows_are_taken_up_to_the_limit(tmp_path: Path) -> None:
    write_lines(tmp_path / "r.jsonl", {"text": "a"}, {"text": "b"}, "no JSON")
    assert len(read(declare("r.jsonl", limit=2), tmp_path)) == 2


def test_rows_without_text_are_counted(tmp_path: Path) -> None:
    write_lines(tmp_path / "r.jsonl", {"text": "a"}, {"text": "  "})
    dropped: Counter[str] = Counter()
    assert len(read(declare("r.jsonl"), tmp_path, dropped=dropped)) == 1
    assert dropped == {"empty": 1}


@given(st.text(st.sampled_from("ab \n"), max_size=2000))
def test_parts_of_a_text_are_bounded_and_make_up_the_text(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("text") / "t.txt"
    path.write_text(text)
    parts = [record.fields["text"] for record in read_text_rows(SourceFile("t.txt", path), 256)]
    assert "".join(parts) == text
    assert all(0 < len(part) <= 256 for part in parts)


def test_a_text_is_cut_at_blank_lines(tmp_path: Path) -> None:
    paragraph = "word " * 30 + "\n"
    (tmp_path / "t.txt").write_text("\n".join([paragraph] * 6))
    parts = [record.fields["text"] for record in read_text_rows(SourceFile("t.txt", tmp_path / "t.txt"), 320)]
    assert len(parts) > 1
    assert all(part.endswith("\n\n") for part in parts[:-1])


def test_text_that_an_installed_package_carries(tmp_path: Path) -> None:
    rows = read(declare("package:numpy.random/LICENSE.md"), tmp_path)
    assert rows[0].content.text


@pytest.mark.parametrize("location", ["package:no_such_package/a.txt", "package:json.no_such/a.txt"])
def test_a_package_that_is_not_installed_is_named(tmp_path: Path, location: str) -> None:
    with pytest.raises(DataError, match="is not installed"):
        read(declare(location), tmp_path)


def test_a_mirror_stands_for_the_hub_and_the_web(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "mirror" / "org" / "set" / "data" / "rows.jsonl", {"text": "a"})
    mirror = tmp_path / "mirror"
    for location in (f"hf:org/set@{COMMIT}", f"hf:org/set@{COMMIT}/data/rows.jsonl"):
        settings = declare(location)
        assert len(read(settings, tmp_path, mirror)) == 1
        assert locate_source(settings, tmp_path, mirror, tmp_path, print).revision == COMMIT
    url = declare("https://example.org/x/rows.jsonl", sha256=digest(path))
    with pytest.raises(DataError, match=f"has neither {digest(path)} nor rows.jsonl"):
        read(url, tmp_path, mirror)
    (mirror / "rows.jsonl").write_bytes(path.read_bytes())
    assert len(read(url, tmp_path, mirror)) == 1
    (mirror / "rows.jsonl").rename(mirror / digest(path))
    assert len(read(url, tmp_path, mirror)) == 1


def test_a_mirror_without_the_dataset_is_no_reason_to_ask_the_hub(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing for hf:org/set@v1 in the data root"):
        read(declare("hf:org/set@v1"), tmp_path, tmp_path)


@pytest.mark.parametrize("location", ["rows.jsonl", f"hf:org/set@{COMMIT}/rows.jsonl", "https://a.org/rows.jsonl"])
def test_a_source_that_changed_under_its_name_names_both_digests(tmp_path: Path, location: str) -> None:
    path = write_lines(tmp_path / "rows.jsonl", {"text": "a"})
    write_lines(tmp_path / "org" / "set" / "rows.jsonl", {"text": "a"})
    assert read(declare(location, sha256=digest(path)), tmp_path, tmp_path)
    with pytest.raises(DataError, match="has changed under its name") as raised:
        read(declare(location, sha256="0" * 64), tmp_path, tmp_path)
    assert "0" * 64 in str(raised.value)
    assert digest(path) in str(raised.value)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{" + SECRET, "it is not valid JSON"),
        ('{"text": NaN}', "it is not valid JSON"),
        ('{"text": "\\ud800"}', "it is not valid JSON"),
        (f'["{SECRET}"]', "it is no JSON object"),
        ("[" * 100_000, "it is n"),
        ({"body": SECRET}, "has no text in text"),
        ({"text": SECRET, "licence": None}, "has an empty licence"),
        ({"text": SECRET, "licence": ""}, "has an empty licence"),
        ({"text": SECRET, "licence": f"{SECRET} only"}, "has a licence that is not one"),
        ({"text": SECRET, "licence": 3}, "has a licence that is not one"),
        ({"text": SECRET, "generator": ""}, "has a generator that is no name"),
        ({"text": SECRET, "principle": "a\nb"}, "has a principle that is no name"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line_without_its_text(tmp_path: Path, line: object, says: str) -> None:
    write_lines(tmp_path / "set" / "r.jsonl", {"text": "fine"}, "", line)
    with pytest.raises(DataError, match=says) as raised:
        read(declare("set"), tmp_path)
    assert str(raised.value).startswith("The source books: r.jsonl, line 3: it ")
    assert SECRET not in str(raised.value)


def test_a_first_row_of_no_known_format_is_named(tmp_path: Path) -> None:
    write_lines(tmp_path / "r.jsonl", {"body": SECRET})
    with pytest.raises(DataError, match=r"r\.jsonl, line 1: it has the columns of no known format"):
        read(declare("r.jsonl"), tmp_path)


def test_one_format_holds_for_all_rows(tmp_path: Path) -> None:
    write_lines(tmp_path / "r.jsonl", {"text": "a"}, {"prompt": "b"})
    with pytest.raises(DataError, match=r"line 2: it has no text in text \(format text\)"):
        read(declare("r.jsonl"), tmp_path)


@pytest.mark.parametrize("kept", [5, 60, -9, -4, -1])
def test_a_truncated_gzip_file_is_named(tmp_path: Path, kept: int) -> None:
    path = write_lines(tmp_path / "r.jsonl.gz", *({"text": f"row {number}"} for number in range(200)))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"r\.jsonl\.gz is torn"):
        read(declare("r.jsonl.gz"), tmp_path)


def test_a_gzip_file_that_is_none_or_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl.gz").write_text('{"text": "a"}')
    with pytest.raises(DataError, match="is torn"):
        read(declare("r.jsonl.gz"), tmp_path)


def test_a_line_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("commonweight.workshop.data.readers.MOST_LINE_BYTES", 2**20)
    write_lines(tmp_path / "r.jsonl.gz", {"text": "a"}, {"text": "a" * 2**20})
    with pytest.raises(DataError, match=r"line 2: it is longer than 1 MiB"):
        read(declare("r.jsonl.gz"), tmp_path)


def test_text_in_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes("caf\u00e9".encode("latin-1"))
    with pytest.raises(DataError, match=r"t\.txt is not UTF-8"):
        read(declare("t.txt"), tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.csv", "a,b", r"t\.csv is of no type that is read \(\.txt"),
        ("t.txt", "", "has no rows"),
        ("t.jsonl", "\n", "has no rows"),
    ],
)
def test_files_without_rows_are_named(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=says):
        read(declare(name), tmp_path)


def test_plain_text_is_no_conversation(tmp_path: Path) -> None:
    write_lines(tmp_path / "t.txt", "a")
    with pytest.raises(DataError, match=r"t\.txt is plain text, and the format messages"):
        read(declare("t.txt", format="messages"), tmp_path)


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="The source books: there is nothing for texts"):
        read(declare("texts"), tmp_path)
