"""Changes of a release: what somebody may do to it, and what a verification has to name."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from commonweight.lineage.chain import CHAIN, Chain, make_chain
from commonweight.lineage.digests import digest_bytes, digest_file
from commonweight.lineage.record import EVALUATION, Record
from commonweight.workshop.export.quantise import requantise
from commonweight.workshop.release.collect import describe_weights
from commonweight.workshop.release.evidence import Evidence, make_evidence, read_evidence
from commonweight.workshop.release.gate import Gate, evaluate_gate
from commonweight.workshop.release.layout import PUBLIC_KEY, SIGNATURE, SUMS, encode_sums, list_files
from commonweight.workshop.release.policy import CheckRow, Policy
from commonweight.workshop.release.release_folder import make_documents
from commonweight.workshop.release.signature import read_public_part, sign_folder
from tests.workshop.release.tiny_build import write_f16

RESULTS, SAMPLES = "evaluation/release-1/results.json", "evaluation/release-1/samples.jsonl"
F16, Q8, Q4 = "tiny-F16.gguf", "tiny-Q8_0.gguf", "tiny-Q4_K_M.gguf"
WEIGHTS = "safetensors/model.safetensors"
_PLACES = 4
"""Places of a file where a byte is changed."""


@dataclass(frozen=True)
class Change:
    """One change of a release."""

    name: str
    apply: Callable[[Path], None]
    file: str
    """What a verification has to name."""
    is_visible: bool = True
    """Whether a verification without a trusted key has to find it."""


def list_changes(release: Path, other_key: Path) -> Iterator[Change]:
    """All changes of a release, always the same ones.

    Args:
        release: an untouched release.
        other_key: a private key that is not the publisher's.
    """
    files = list_files(release)[0]
    yield from _change_bytes(files)
    yield from _change_files(files)
    yield from _change_unsigned(files)
    yield from _change_documents(other_key)
    yield from _rewrite_whole(other_key)


def _change_bytes(files: Mapping[str, int]) -> Iterator[Change]:
    for name, size in files.items():
        for place in sorted({size * step // _PLACES for step in range(_PLACES)} | {size - 1}):
            yield Change(f"byte {place} of {name}", _Flip(name, place), name)
        yield Change(f"{name} without its last byte", _Cut(name), name)
        yield Change(f"{name} with one more byte", _Append(name), name)


def _change_files(files: Mapping[str, int]) -> Iterator[Change]:
    for name in files:
        yield Change(f"{name} removed", lambda folder, name=name: (folder / name).unlink(), name)  # type: ignore[misc]
    for old, new in ((F16, "tiny-BF16.gguf"), ("README.md", "readme.md"), (SUMS, "SHA256SUM"), (WEIGHTS, "model.sft")):
        yield Change(f"{old} renamed", _Rename(old, new), old)
    for one, two in ((F16, Q8), (Q8, Q4), (RESULTS, SAMPLES), ("gate.json", "parity.json"), ("LICENSE", "NOTICE")):
        yield Change(f"{one} and {two} exchanged", _Exchange(one, two), one)
    for name in ("extra.txt", "evaluation/logs.json", "safetensors/pytorch_model.bin", "a/b/c", "signing-key.pub.old"):
        yield Change(f"{name} added", _Add(name), name)
    for name, shown in ((".hidden", ".hidden"), ("R\u0415ADME.md", "R\\u0415ADME.md"), ("a b", "a b"), ("-x", "-x")):
        yield Change(f"{shown} added", _Add(name), shown)
    for name, shown in (("README.md\u200b", "README.md\\u200b"), ("x\x1b[2J", "x\\x1b[2J"), ("a/b/c/d", "a/b/c/d")):
        yield Change(f"{shown} added", _Add(name), shown)
    yield Change("README.md is a link", _link, "README.md")
    yield Change("a folder is a link", lambda folder: os.symlink("/", folder / "root"), "root")
    yield Change("release.json is a pipe", _make_pipe, "release.json")
    yield Change("a hole", _make_hole, "hole.gguf")


def _change_unsigned(files: Mapping[str, int]) -> Iterator[Change]:
    """One changed byte, with the list of digests made again and the old signature."""
    for name, size in files.items():
        if name not in (SUMS, SIGNATURE):
            yield Change(f"byte of {name}, listed again", _then(_Flip(name, size // 2), write_sums), name)


def _change_documents(key: Path) -> Iterator[Change]:
    """One file edited, everything listed and signed again with another key."""
    seal = _Seal(key)
    edits: list[tuple[str, str, str, str]] = [
        ("a figure in the card", "README.md", "| 0.6 |", "| 0.9 |"),
        ("a figure in the card's metadata", "README.md", "value: 0.6", "value: 0.96"),
        ("the licence in the card", "README.md", "license: apache-2.0", "license: mit"),
        ("a row of the gate in the card", "README.md", "| f16-kl | pass |", "| f16-kl | fail |"),
        ("a size in the card", "README.md", "| 1 |", "| 2 |"),
        ("a value of the gate", "gate.json", '"value": 0.0001', '"value": 0.00001'),
        ("a reason of the gate", "gate.json", "all 2 decisions pass", "all 3 decisions pass"),
        ("a digest of the gate", "gate.json", '"inputs": {', '"inputs": {\n  "x": "' + "0" * 64 + '",'),
        ("a bound of the gate", "gate.json", '"bound": 0.001', '"bound": 0.1'),
        ("the gate's verdict", "gate.json", '"verdict": "pass"', '"verdict": "waived"'),
        ("a key of the gate twice", "gate.json", '"verdict"', '"verdict": "pass", "verdict"'),
        ("a number that is none", "gate.json", '"value": 0.0001', '"value": NaN'),
        ("a value of the parity report", "parity.json", "0.0001", "0.00001"),
        ("a digest of the parity report", "parity.json", '"sha256": "', '"sha256": "0'),
        ("a figure", RESULTS, "0.6", "0.8"),
        ("the number of samples", RESULTS, '"n": 5', '"n": 6'),
        ("errors", RESULTS, '"errors": 1', '"errors": 0'),
        ("a score", SAMPLES, '{"right": 0}', '{"right": 1}'),
        ("a text among the scores", SAMPLES, '"sums:1#0"', '"this is what was asked of the model"'),
        ("a text as a field", SAMPLES, '"score"', '"text": "what was asked of it", "score"'),
        ("a source in the bill of material", "bom.cdx.json", "tales", "stories"),
        ("a licence in the bill of material", "bom.cdx.json", "CC-BY-4.0", "CC0-1.0"),
        ("an obligation in the notice", "NOTICE", "name the source", "do nothing"),
        ("a source in the notice", "NOTICE", "tales", "stories"),
        ("the licence's text", "LICENSE", "Apache License", "Apache Licence"),
        ("a size in release.json", "release.json", '"size": ', '"size": 1'),
        ("the head in release.json", "release.json", '"head": "', '"head": "0'),
        ("the licence in release.json", "release.json", "Apache-2.0", "MIT"),
        ("the export in release.json", "release.json", '"export": "', '"export": "0'),
        ("an unknown field in release.json", "release.json", '"date"', '"extra": 1, "date"'),
        ("the description in release.json", "release.json", "for tests", "for all"),
        ("a parameter of a record", CHAIN, "50000", "50001"),
        ("a licence of a record", CHAIN, "CC-BY-4.0", "CC0-1.0"),
        ("a decision", CHAIN, '"rows":120', '"rows":121'),
        ("a digest in a line", CHAIN, '"previous":"', '"previous":"0'),
        ("the configuration of the model", "safetensors/config.json", "256", "512"),
    ]
    for name, file, old, new in edits:
        if name == "a size in the card":
            old, new = "| tales | text | CC-BY-4.0 | people | 30 |", "| tales | text | CC-BY-4.0 | people | 31 |"
        yield Change(f"{name}, signed again", _then(_Replace(file, old, new), seal), file)
    lines = {
        "the last record left out": lambda lines: lines[:-1],
        "the first record left out": lambda lines: lines[1:],
        "two records exchanged": lambda lines: [lines[1], lines[0], *lines[2:]],
        "a record twice": lambda lines: [*lines, lines[-1]],
        "no records": lambda lines: [],
    }
    for name, edit in lines.items():
        yield Change(f"{name}, signed again", _then(_EditLines(CHAIN, edit), seal), CHAIN)
    for name, data in (
        ("a deep value", b"[" * 100_000 + b"]" * 100_000),
        ("no JSON", b"{"),
        ("a huge number", b'{"x": 1e999}'),
        ("bytes that are no text", b"\xff\xfe{}"),
    ):
        for file in ("gate.json", "release.json", "parity.json", CHAIN, SAMPLES):
            yield Change(f"{name} as {file}, signed again", _then(_Write(file, data + b"\n"), seal), file)
    hostile = (
        ("a path out of the folder", f"{'0' * 64}  ../../etc/passwd\n".encode()),
        ("an absolute path", f"{'0' * 64}  /etc/passwd\n".encode()),
        ("a name that is not ASCII", f"{'0' * 64}  R\u0415ADME.md\n".encode()),
        ("no digests", b"\n"),
    )
    for name, data in hostile:
        yield Change(f"{name} in {SUMS}", _AppendBytes(SUMS, data), SUMS)
    yield Change("another F16 file, signed again", _then(_write_other_f16, seal), F16)
    yield Change("another head in the weights, signed again", _then(_write_other_head, seal), F16)
    yield Change("a quantised file of another model, signed again", _then(_write_other_q8, seal), Q8)
    yield Change("a file that the layout lacks, signed again", _then(_Add("run.sh"), seal), "run.sh")
    yield Change("the logs of an evaluation, signed again", _then(_Add("evaluation/log.json"), seal), "log.json")
    yield Change("no quantised file, signed again", _then(lambda folder: (folder / Q8).unlink(), seal), Q8)
    yield Change("records rewritten, weights not", _rewrite(key, _change_source), F16)
    yield Change("a quantised file left out of documents", _rewrite(key, _leave_out_q4), Q4)
    yield Change("a blocked gate, in agreement", _rewrite(key, _block), "gate.json")


def _rewrite_whole(key: Path) -> Iterator[Change]:
    """Everything made to agree, and signed with another key: only a trusted key shows it."""
    rewrites: dict[str, Callable[[Path, Evidence], Evidence]] = {
        "another description": lambda _, e: _declare(e, description="The best model."),
        "other limitations": lambda _, e: _declare(e, limitations="None."),
        "another name": lambda _, e: _declare(e, name="huge", title="Huge"),
        "another licence": lambda _, e: _declare(e, licence="Apache-2.0", title="Tiny, freely"),
        "another date": lambda _, e: _declare(e, date="2027-01-01"),
        "another base": lambda _, e: _declare(e, base_model="someone/something"),
        "better scores": _improve_scores,
        "a better parity report": _improve_parity,
        "other provenance, heads rewritten": _change_source_and_weights,
    }
    for name, edit in rewrites.items():
        yield Change(f"{name}, whole and signed again", _rewrite(key, edit), PUBLIC_KEY, is_visible=False)
    yield Change("a weaker policy, whole and signed again", _weaken(key), PUBLIC_KEY, is_visible=False)
    yield Change("signed again, nothing else", _Seal(key), PUBLIC_KEY, is_visible=False)


def write_sums(folder: Path) -> None:
    """Make the list of digests again."""
    names = [name for name in list_files(folder)[0] if name not in (SUMS, SIGNATURE)]
    (folder / SUMS).write_bytes(encode_sums({name: digest_file(folder / name) for name in names}))


def rewrite_documents(folder: Path, evidence: Evidence, policy: Policy) -> None:
    """Make all documents again, of other evidence or another policy."""
    for name, data in make_documents(evidence, evaluate_gate(policy, evidence)).items():
        (folder / name).write_bytes(data)


@dataclass(frozen=True)
class _Seal:
    key: Path

    def __call__(self, folder: Path) -> None:
        (folder / PUBLIC_KEY).write_bytes(read_public_part(self.key))
        write_sums(folder)
        sign_folder(folder, self.key)


@dataclass(frozen=True)
class _Flip:
    name: str
    place: int

    def __call__(self, folder: Path) -> None:
        with (folder / self.name).open("r+b") as file:
            file.seek(self.place)
            byte = file.read(1)[0]
            file.seek(self.place)
            file.write(bytes([byte ^ 1]))


@dataclass(frozen=True)
class _Cut:
    name: str

    def __call__(self, folder: Path) -> None:
        os.truncate(folder / self.name, (folder / self.name).stat().st_size - 1)


@dataclass(frozen=True)
class _AppendBytes:
    name: str
    data: bytes

    def __call__(self, folder: Path) -> None:
        with (folder / self.name).open("ab") as file:
            file.write(self.data)


def _Append(name: str) -> _AppendBytes:  # noqa: N802 - beside the others
    return _AppendBytes(name, b"\n")


@dataclass(frozen=True)
class _Write:
    name: str
    data: bytes

    def __call__(self, folder: Path) -> None:
        (folder / self.name).write_bytes(self.data)


@dataclass(frozen=True)
class _Add:
    name: str

    def __call__(self, folder: Path) -> None:
        (folder / self.name).parent.mkdir(parents=True, exist_ok=True)
        (folder / self.name).write_text("added\n")


@dataclass(frozen=True)
class _Rename:
    old: str
    new: str

    def __call__(self, folder: Path) -> None:
        (folder / self.old).rename(folder / self.new)


@dataclass(frozen=True)
class _Exchange:
    one: str
    two: str

    def __call__(self, folder: Path) -> None:
        (folder / self.one).rename(folder / "between")
        (folder / self.two).rename(folder / self.one)
        (folder / "between").rename(folder / self.two)


@dataclass(frozen=True)
class _Replace:
    name: str
    old: str
    new: str

    def __call__(self, folder: Path) -> None:
        text = (folder / self.name).read_text()
        assert self.old in text, f"{self.name} has no {self.old!r}"
        (folder / self.name).write_text(text.replace(self.old, self.new, 1))


@dataclass(frozen=True)
class _EditLines:
    name: str
    edit: Callable[[list[bytes]], list[bytes]]

    def __call__(self, folder: Path) -> None:
        lines = (folder / self.name).read_bytes().splitlines(keepends=True)
        (folder / self.name).write_bytes(b"".join(self.edit(lines)))


def _then(*steps: Callable[[Path], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        for step in steps:
            step(folder)

    return apply


def _link(folder: Path) -> None:
    shutil.move(folder / "README.md", folder.parent / "card")
    (folder / "README.md").symlink_to(folder.parent / "card")


def _make_pipe(folder: Path) -> None:
    (folder / "release.json").unlink()
    os.mkfifo(folder / "release.json")


def _make_hole(folder: Path) -> None:
    with (folder / "hole.gguf").open("wb") as file:
        file.truncate(1 << 40)


def _write_other_f16(folder: Path) -> None:
    write_f16(folder / F16, read_evidence(folder).head, seed=8)


def _write_other_head(folder: Path) -> None:
    write_f16(folder / F16, "1" * 64)


def _write_other_q8(folder: Path) -> None:
    write_f16(folder / "other.gguf", read_evidence(folder).head, seed=8)
    requantise(folder / "other.gguf", "Q8_0", folder / Q8)
    (folder / "other.gguf").unlink()


def _rewrite(key: Path, edit: Callable[[Path, Evidence], Evidence]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        policy = Gate.model_validate_json((folder / "gate.json").read_bytes()).policy
        rewrite_documents(folder, edit(folder, read_evidence(folder)), policy)
        _Seal(key)(folder)

    return apply


def _weaken(key: Path) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        row = CheckRow(id="lineage", statement="There is a chain", kind="lineage")
        rewrite_documents(folder, read_evidence(folder), Policy(name="public", description="Less", rows=(row,)))
        _Seal(key)(folder)

    return apply


def _declare(evidence: Evidence, **fields: Any) -> Evidence:
    changed = evidence.declaration.model_dump(mode="json") | fields
    declaration = type(evidence.declaration).model_validate(changed)
    return replace(evidence, declaration=declaration)


def _rebuild(evidence: Evidence, edit: Callable[[Record], Record], parity: bytes | None = None, **files: bytes) -> Evidence:
    """Edit records and make everything that depends on them again: identities, digests, chain."""
    new: dict[str, Record] = {}
    renamed: dict[str, Record] = {}
    for record in evidence.chain.records:
        inputs = tuple(
            item.model_copy(update={"record": renamed[item.record].identity, "digest": renamed[item.record].content})
            if item.record
            else item
            for item in record.inputs
        )
        changed = edit(record.model_copy(update={"inputs": inputs}))
        carried = [renamed[i.record] for i in record.inputs if i.record and i.role != EVALUATION]
        licences = {*changed.own_licences, *(name for item in carried for name in item.licences)}
        changed = changed.model_copy(update={"licences": tuple(sorted(licences))})
        renamed[record.identity] = changed
        new[changed.identity] = changed
    declaration = evidence.declaration.model_dump(mode="json")
    declaration["export"] = renamed[evidence.declaration.export].identity
    for facts in declaration["evaluations"]:
        facts["record"] = renamed[facts["record"]].identity
    roots = [declaration["export"], *(facts["record"] for facts in declaration["evaluations"])]
    chain: Chain = make_chain(roots, new)
    names = (RESULTS, SAMPLES)
    evaluation = tuple(files.get(name.rpartition("/")[2].partition(".")[0], evidence.evaluations[name]) for name in names)
    return make_evidence(
        type(evidence.declaration).model_validate(declaration),
        chain,
        parity or evidence.parity_bytes,
        [(evaluation[0], evaluation[1])],
    )


def _set_files(kind: str, **files: bytes | str) -> Callable[[Record], Record]:
    digests = {name: value if isinstance(value, str) else digest_bytes(value) for name, value in files.items()}

    def edit(record: Record) -> Record:
        return record.model_copy(update={"files": record.files | digests}) if record.kind == kind else record

    return edit


def _improve_scores(_: Path, evidence: Evidence) -> Evidence:
    results = json.loads(evidence.evaluations[RESULTS])
    results["figures"][0]["value"] = 0.8
    lines = evidence.evaluations[SAMPLES].replace(b'{"right": 0}', b'{"right": 1}')
    data = json.dumps(results).encode()
    edit = _set_files("evaluate", **{"results.json": data, "samples.jsonl": lines})
    return _rebuild(evidence, edit, results=data, samples=lines)


def _improve_parity(_: Path, evidence: Evidence) -> Evidence:
    parity = evidence.parity_bytes.replace(b"0.0001", b"0.00001")
    return _rebuild(evidence, _set_files("export", **{"parity.json": parity}), parity)


def _change_source(_: Path, evidence: Evidence) -> Evidence:
    def edit(record: Record) -> Record:
        if record.kind != "source":
            return record
        decisions = tuple(d.model_copy(update={"licence": "CC0-1.0"}) for d in record.decisions)
        return record.model_copy(update={"own_licences": ("CC0-1.0",), "decisions": decisions})

    return _rebuild(evidence, edit)


def _change_source_and_weights(folder: Path, evidence: Evidence) -> Evidence:
    changed = _change_source(folder, evidence)
    write_f16(folder / F16, changed.head)
    for kind in ("Q8_0", "Q4_K_M"):
        requantise(folder / F16, kind, folder / f"tiny-{kind}.gguf")
    digests = {name: digest_file(folder / name) for name in (F16, Q8, Q4)}
    parity = changed.parity_bytes
    for name, digest in digests.items():
        parity = parity.replace(changed.export.files[name].encode(), digest.encode())
    changed = _rebuild(changed, _set_files("export", **digests, **{"parity.json": parity}), parity)
    facts = {name: describe_weights(folder / name) for name in changed.declaration.weights}
    return _declare(changed, weights={name: value.model_dump(mode="json") for name, value in facts.items()})


def _leave_out_q4(_: Path, evidence: Evidence) -> Evidence:
    weights = {n: f.model_dump(mode="json") for n, f in evidence.declaration.weights.items() if n != Q4}
    return _declare(evidence, weights=weights)


def _block(_: Path, evidence: Evidence) -> Evidence:
    parity = evidence.parity_bytes.replace(b"0.0001", b"0.1")
    return _rebuild(evidence, _set_files("export", **{"parity.json": parity}), parity)


