"""Records, their identity, and the chain that a release carries."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonweight.lineage.build_folder import BuildFolder
from commonweight.lineage.chain import START, Chain, decode_chain, make_chain
from commonweight.lineage.digests import LineageError, digest_bytes, digest_files, encode_json
from commonweight.lineage.record import EVALUATION, Input, Record, check_files, read_record, write_record


def make_record(name: str, *inputs: Record, role: str = "data", own: tuple[str, ...] = ()) -> Record:
    entering = inputs if role != EVALUATION else ()
    return Record(
        kind="test",
        name=name,
        inputs=tuple(Input(role=role, name=i.name, digest=i.content, record=i.identity) for i in inputs),
        files={"data": digest_bytes(name.encode())},
        licences=tuple(sorted({*own, *(lic for i in entering for lic in i.licences)})),
        own_licences=own,
    )


def index(*records: Record) -> dict[str, Record]:
    return {record.identity: record for record in records}


SOURCE = make_record("source", own=("MIT",))
OTHER = make_record("other", own=("CC0-1.0",))
MIX = make_record("mix", SOURCE, OTHER)
MODEL = make_record("model", MIX)
RECORDS = index(SOURCE, OTHER, MIX, MODEL, make_record("not needed"))


def test_a_record_has_one_form_and_its_identity_covers_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("rows")
    record = Record(kind="source", name="a", files=digest_files(tmp_path), parameters={"b": 1, "a": [0.5, None]})
    write_record(tmp_path, record, {"seconds": 1.5})
    assert read_record(tmp_path) == record
    check_files(tmp_path, record)
    changed = record.model_copy(update={"parameters": {"b": 1, "a": [0.5, 0]}})
    assert changed.identity != record.identity
    assert changed.content == record.content
    write_record(tmp_path, record, {"seconds": 99, "host": "another"})
    assert read_record(tmp_path).identity == record.identity
    (tmp_path / "record.json").write_text(json.dumps(record.model_dump(mode="json"), indent=1))
    with pytest.raises(LineageError, match="not written as records are"):
        read_record(tmp_path)


def test_files_are_those_of_the_record(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "data").write_text("rows")
    record = Record(kind="source", name="a", files=digest_files(tmp_path))
    (tmp_path / "more").write_text("x")
    with pytest.raises(LineageError, match="more, which its record does not name"):
        check_files(tmp_path, record)
    (tmp_path / "more").unlink()
    (tmp_path / "sub" / "data").write_text("rowz")
    with pytest.raises(LineageError, match="sub/data is not the file"):
        check_files(tmp_path, record)
    (tmp_path / "sub" / "data").unlink()
    with pytest.raises(LineageError, match="has no sub/data"):
        check_files(tmp_path, record)
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(LineageError, match="is a link"):
        digest_files(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{}", "kind: Field required"),
        (b"[]", "not a record"),
        (b"\xff", "not a record"),
        (b'{"kind": "a", "name": "b", "files": {"c": "d"}}', "files.c"),
        (b'{"kind": "a", "name": "b", "files": {}, "more": 1}', "more"),
    ],
)
def test_what_is_no_record(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(LineageError, match=reason):
        read_record(tmp_path)
    with pytest.raises(LineageError, match="has no record"):
        read_record(tmp_path / "nothing")


def test_a_chain_holds_what_its_roots_depend_on_in_order() -> None:
    chain = make_chain([MODEL.identity], RECORDS)
    assert [record.name for record in chain.records][2:] == ["mix", "model"]
    assert {record.name for record in chain.records[:2]} == {"source", "other"}
    assert decode_chain(chain.encode()) == chain
    assert chain.head == decode_chain(chain.encode()).head != START
    assert Chain(()).head == START
    assert decode_chain(b"") == Chain(())


@given(st.permutations(list(RECORDS)))
def test_the_order_of_a_chain_depends_on_its_records_alone(order: list[str]) -> None:
    shuffled = {identity: RECORDS[identity] for identity in order}
    assert make_chain([MODEL.identity], shuffled).encode() == make_chain([MODEL.identity], RECORDS).encode()


def test_a_chain_needs_every_record() -> None:
    with pytest.raises(LineageError, match="is missing, and others depend on it"):
        make_chain([MODEL.identity], index(MODEL, MIX, SOURCE))


def test_every_change_of_a_chain_is_found() -> None:
    data = make_chain([MODEL.identity], RECORDS).encode()
    for position in range(len(data)):
        changed = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        # A changed last line is another chain, which only its head shows.
        try:
            chain = decode_chain(changed)
        except LineageError:
            continue
        assert chain.head != decode_chain(data).head
        assert position > data[:-1].rfind(b"\n")
    lines = data.splitlines(keepends=True)
    for cut in range(len(lines) - 1):
        with pytest.raises(LineageError):
            decode_chain(b"".join(lines[:cut] + lines[cut + 1 :]))
    with pytest.raises(LineageError, match="cut off"):
        decode_chain(data[:-1])


def test_licences_of_what_entered_are_carried() -> None:
    forgetful = MIX.model_copy(update={"licences": ("MIT",)})
    with pytest.raises(LineageError, match=r"mix has the licences CC0-1\.0, MIT by its inputs, and states MIT"):
        decode_chain(make_chain([forgetful.identity], index(SOURCE, OTHER, forgetful)).encode())
    measured = make_record("measured", SOURCE, role=EVALUATION)
    assert measured.licences == ()
    decode_chain(make_chain([measured.identity], index(SOURCE, measured)).encode())


def test_an_input_is_what_its_record_says() -> None:
    other = Input(role="data", name="source", digest="5" * 64, record=SOURCE.identity)
    wrong = MIX.model_copy(update={"inputs": (other,), "licences": ("MIT",)})
    with pytest.raises(LineageError, match="source is not what its record"):
        decode_chain(make_chain([wrong.identity], index(SOURCE, wrong)).encode())


def test_numbers_that_json_does_not_have() -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode_json({"loss": float("nan")})


def test_a_build_folder_is_private_and_publishes_whole_outputs(tmp_path: Path) -> None:
    build = BuildFolder(tmp_path / "build")
    build.create()
    assert build.path.stat().st_mode & 0o777 == 0o700
    draft = build.get_draft("mix", "a" * 64)
    draft.mkdir()
    (draft / "rows").write_text("1")
    assert build.find_record("mix", "a" * 64) is None
    record = Record(kind="mix", name="mix", files=digest_files(draft))
    write_record(draft, record, {})
    output = build.publish("mix", "a" * 64)
    assert (output / "rows").read_text() == "1"
    assert build.find_record("mix", "a" * 64) == record
    assert build.read_records() == {record.identity: record}
    assert not draft.exists()
    (kept,) = (build.path / "records").iterdir()
    kept.write_bytes(kept.read_bytes().replace(b'"mix"', b'"max"'))
    with pytest.raises(LineageError, match="is not the record that its name says"):
        build.read_records()


def test_one_build_at_a_time(tmp_path: Path) -> None:
    build = BuildFolder(tmp_path)
    build.create()
    with build.lock(), pytest.raises(LineageError, match="Another build is running"), build.lock():
        pass
    with build.lock():
        assert build.read_status() is None
        build.write_status({"stages": []})
        assert build.read_status() == {"stages": []}
    (tmp_path / "status.json").write_text("[")
    with pytest.raises(LineageError, match="not a status file"):
        build.read_status()
