"""Changes of a release: what somebody may do to it, and what a verification has to name."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rewriting import (
    F16,
    Q4,
    Q8,
    RESULTS,
    SAMPLES,
    Edit,
    Seal,
    block,
    change_source,
    change_source_and_weights,
    declare,
    improve_parity,
    improve_scores,
    leave_out_q4,
    rewrite,
    weaken,
    write_sums,
)
from tiny_build import quantise, write_f16

from commonweight.lineage.chain import CHAIN
from commonweight.workshop.release.evidence import read_evidence
from commonweight.workshop.release.layout import PUBLIC_KEY, SIGNATURE, SUMS, list_files

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


def list_large_changes(release: Path, other_key: Path) -> Iterator[Change]:
    """Twelve changes of a release whose weights are large."""
    weights = [name for name in list_files(release)[0] if name.endswith((".gguf", ".safetensors"))]
    f16, q4, q8 = (
        next(name for name in weights if name.endswith(f"-{kind}.gguf")) for kind in ("F16", "Q4_K_M", "Q8_0")
    )
    for name in weights:
        middle = (release / name).stat().st_size // 2
        yield Change(f"byte {middle} of {name}", _Flip(name, middle), name)
    yield Change(f"{f16} without its last byte", _Cut(f16), f16)
    yield Change(f"{q8} with one more byte", _AppendBytes(q8, b"\n"), q8)
    yield Change(f"{q4} removed", _Remove(q4), q4)
    yield Change(f"{q4} and {q8} exchanged", _Exchange(q4, q8), q4)
    for name in (f16, WEIGHTS):
        yield Change(f"byte of {name}, listed again", _then(_Flip(name, 10**8), write_sums), name)
    seal = Seal(other_key)
    yield Change(f"byte of {q8}, signed again", _then(_Flip(q8, 10**8), seal), q8)
    edit = _Replace("gate.json", '"result": "pass"', '"result": "fail"')
    yield Change("a row of the gate, signed again", _then(edit, seal), "gate.json")


def _change_bytes(files: Mapping[str, int]) -> Iterator[Change]:
    for name, size in files.items():
        for place in sorted({size * step // _PLACES for step in range(_PLACES)} | {size - 1}):
            yield Change(f"byte {place} of {name}", _Flip(name, place), name)
        yield Change(f"{name} without its last byte", _Cut(name), name)
        yield Change(f"{name} with one more byte", _AppendBytes(name, b"\n"), name)


def _change_files(files: Mapping[str, int]) -> Iterator[Change]:
    for name in files:
        yield Change(f"{name} removed", _Remove(name), name)
    renamed = ((F16, "tiny-BF16.gguf"), ("README.md", "readme.md"), (SUMS, "SHA256SUM"), (WEIGHTS, "model.sft"))
    for old, new in renamed:
        yield Change(f"{old} renamed", _Rename(old, new), old)
    exchanged = ((F16, Q8), (Q8, Q4), (RESULTS, SAMPLES), ("gate.json", "parity.json"), ("LICENSE", "NOTICE"))
    for one, two in exchanged:
        yield Change(f"{one} and {two} exchanged", _Exchange(one, two), one)
    plain = ("extra.txt", "evaluation/logs.json", "safetensors/pytorch_model.bin", "a/b/c", "signing-key.pub.old")
    odd = (".hidden", "R\u0415ADME.md", "a b", "-x", "README.md\u200b", "x\x1b[2J", "a/b/c/d")
    for name in (*plain, *odd):
        shown = ascii(name)[1:-1]  # as a terminal can show it
        yield Change(f"{shown} added", _Add(name), shown)
    yield Change("README.md is a link", _link, "README.md")
    yield Change("a folder is a link", _link_folder, "root")
    yield Change("release.json is a pipe", _make_pipe, "release.json")
    yield Change("a hole", _make_hole, "hole.gguf")


def _change_unsigned(files: Mapping[str, int]) -> Iterator[Change]:
    """One changed byte, with the list of digests made again and the old signature."""
    for name, size in files.items():
        if name not in (SUMS, SIGNATURE):
            yield Change(f"byte of {name}, listed again", _then(_Flip(name, size // 2), write_sums), name)


def _change_documents(key: Path) -> Iterator[Change]:
    """One file edited, everything listed and signed again with another key."""
    seal = Seal(key)
    edits: list[tuple[str, str, str, str]] = [
        ("a figure in the card", "README.md", "| 0.6 |", "| 0.9 |"),
        ("a figure in the card's metadata", "README.md", "value: 0.6", "value: 0.96"),
        ("the licence in the card", "README.md", "license: apache-2.0", "license: mit"),
        ("a row of the gate in the card", "README.md", "| f16-kl-mean | pass |", "| f16-kl-mean | fail |"),
        ("rows in the card", "README.md", "| people | 30 |", "| people | 31 |"),
        ("a value of the gate", "gate.json", '"value": 0.0001', '"value": 0.00001'),
        ("a reason of the gate", "gate.json", "2 of 2 decisions pass", "3 of 3 decisions pass"),
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
    yield Change("no quantised file, signed again", _then(_Remove(Q8), seal), Q8)
    yield Change("records rewritten, weights not", rewrite(key, change_source), F16)
    yield Change("a quantised file left out of documents", rewrite(key, leave_out_q4), Q4)
    yield Change("a blocked gate, in agreement", rewrite(key, block), "gate.json")


def _rewrite_whole(key: Path) -> Iterator[Change]:
    """Everything made to agree, and signed with another key: only a trusted key shows it."""
    rewrites: dict[str, Edit] = {
        "another description": lambda _, e: declare(e, description="The best model."),
        "other limitations": lambda _, e: declare(e, limitations="None."),
        "another name": lambda _, e: declare(e, name="huge", title="Huge"),
        "another licence": lambda _, e: declare(e, licence="Apache-2.0", title="Tiny, freely"),
        "another date": lambda _, e: declare(e, date="2027-01-01"),
        "another base": lambda _, e: declare(e, base_model="someone/something"),
        "better scores": improve_scores,
        "a better parity report": improve_parity,
        "other provenance, heads rewritten": change_source_and_weights,
    }
    for name, edit in rewrites.items():
        yield Change(f"{name}, whole and signed again", rewrite(key, edit), PUBLIC_KEY, is_visible=False)
    yield Change("a weaker policy, whole and signed again", weaken(key), PUBLIC_KEY, is_visible=False)
    yield Change("signed again, nothing else", Seal(key), PUBLIC_KEY, is_visible=False)


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
class _Remove:
    name: str

    def __call__(self, folder: Path) -> None:
        (folder / self.name).unlink()


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


def _link_folder(folder: Path) -> None:
    (folder / "root").symlink_to("/")


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
    quantise(folder, "other.gguf", ("Q8_0",))
    (folder / "other.gguf").unlink()
