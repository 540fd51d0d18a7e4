"""Graphs of records: found in a build, an output or a release; as a tree and for Graphviz."""

import json
import re
from pathlib import Path

import pytest

from commonweight.lineage.build_folder import BuildFolder
from commonweight.lineage.chain import make_chain
from commonweight.lineage.digests import LineageError, digest_bytes
from commonweight.lineage.graph import Graph, make_dot, read_graph, walk_tree
from commonweight.lineage.record import Input, Record
from lineage_builds import write_build


def test_a_build_an_output_and_a_release_have_the_same_graph(tmp_path: Path) -> None:
    records = write_build(tmp_path / "build")
    base = records["base"].identity
    release = tmp_path / "release"
    release.mkdir()
    chain = make_chain([base], {record.identity: record for record in records.values()})
    (release / "lineage.jsonl").write_bytes(chain.encode())
    [output] = (tmp_path / "build" / "outputs" / "base").iterdir()
    for folder in (tmp_path / "build", output, release):
        graph = read_graph(folder)
        assert graph.roots == (base,)
        assert graph.records == {record.identity: record for record in records.values()}


def test_an_output_in_the_middle_holds_what_it_needs_only(tmp_path: Path) -> None:
    write_build(tmp_path)
    [output] = (tmp_path / "outputs" / "clean").iterdir()
    assert [record.name for record in read_graph(output).records.values()] == ["clean", "pages"]


def test_the_tree_shows_what_stands_twice_once(tmp_path: Path) -> None:
    write_build(tmp_path)
    lines = [(line.depth, line.role, line.name, line.is_repeated) for line in walk_tree(read_graph(tmp_path))]
    assert lines == [
        (0, "", "base", False),
        (1, "data", "clean", False),
        (2, "data", "pages", False),
        (3, "source", "pages.jsonl", False),
        (1, "data", "tokenizer", False),
        (2, "data", "clean", True),
    ]


def test_long_chains_are_walked() -> None:
    records: dict[str, Record] = {}
    inputs: tuple[Input, ...] = ()
    for number in range(5000):
        record = Record(kind="filter", name=f"s{number}", inputs=inputs, files={})
        records[record.identity] = record
        inputs = (Input(role="data", name=record.name, digest=record.content, record=record.identity),)
    assert len(list(walk_tree(Graph((record.identity,), records)))) == 5000


@pytest.mark.parametrize("origin", ["a\\", 'a"; b [label="', "a\nb", 'a\\"', "plain"])
def test_names_end_no_string_of_graphviz(origin: str, tmp_path: Path) -> None:
    write_build(tmp_path, origin=origin)
    dot = make_dot(read_graph(tmp_path))
    string = r'"(?:[^"\\\n]|\\.)*"'
    attributes = rf"\[label={string}(?:, style=dashed)?\]"
    statements = [rf"  {string} {attributes};", rf"  {string} -> {string} {attributes};"]
    first, font, *lines, last = dot.splitlines()
    assert (first, last) == ("digraph lineage {", "}")
    assert font.startswith("  node [")
    assert [line for line in lines if not any(re.fullmatch(one, line) for one in statements)] == []
    assert sum("->" in line for line in lines) == 5


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("status.json", "{", "is not a status file"),
        ("status.json", "[]", "is not a status file"),
        ("status.json", "{}", "holds no records: nothing is built there"),
        ("status.json", '{"stages": 3}', "holds no records"),
        ("status.json", json.dumps({"stages": {"a": {"record": "0" * 64}}}), "The record 000000000000 is missing"),
        ("record.json", "x", "is not a record"),
        ("lineage.jsonl", "", "holds no records"),
        ("lineage.jsonl", "{}", "is cut off"),
        ("lineage.jsonl", "{}\n", "line 1 is not a line of a chain"),
        ("other.json", "{}", "it is no release, build or output"),
    ],
)
def test_folders_without_a_graph(name: str, content: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(LineageError, match=problem) as caught:
        read_graph(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_record_that_was_changed_is_named(tmp_path: Path) -> None:
    records = write_build(tmp_path)
    path = tmp_path / "records" / f"{records['clean'].identity}.json"
    path.write_bytes(records["clean"].model_copy(update={"name": "other"}).encode())
    with pytest.raises(LineageError, match="is not the record that its name says"):
        read_graph(tmp_path)
    path.unlink()
    with pytest.raises(LineageError, match=f"The record {records['clean'].identity[:12]} is missing"):
        read_graph(tmp_path)


def test_an_output_gets_another_record(tmp_path: Path) -> None:
    records = write_build(tmp_path)
    key = digest_bytes(b"pages")
    changed = records["pages"].model_copy(update={"seed": 3})
    folder = BuildFolder(tmp_path)
    folder.replace_record("pages", key, changed)
    assert folder.find_record("pages", key) == changed
    assert folder.read_records().keys() >= {changed.identity, records["pages"].identity}
    assert list(tmp_path.rglob("*.draft")) == []
