"""The graph of records that an output, a build or a release depends on: found on disk, as a tree, as Graphviz."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from commonweight.lineage.build_folder import STATUS, BuildFolder
from commonweight.lineage.chain import CHAIN, decode_chain
from commonweight.lineage.digests import RECORD, LineageError
from commonweight.lineage.record import Record, read_record

MAX_CHAIN_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Graph:
    """Records by identity, and those that nothing else depends on."""

    roots: tuple[str, ...]
    records: dict[str, Record]


@dataclass(frozen=True)
class TreeLine:
    """A line of a tree: a record, or something from outside."""

    depth: int
    role: str
    name: str
    kind: str
    digest: str
    licences: tuple[str, ...]
    is_repeated: bool = False
    """It stands above with all that is below it."""


def read_graph(folder: Path) -> Graph:
    """Read the graph of a release, a build folder or one output of a build.

    Raises:
        LineageError: the folder is none of these, or a record is missing or changed.
    """
    if (folder / CHAIN).is_file():
        path = folder / CHAIN
        if path.stat().st_size > MAX_CHAIN_BYTES:
            raise LineageError(f"{path} is larger than {MAX_CHAIN_BYTES // 2**20} MiB.")
        records = {record.identity: record for record in decode_chain(path.read_bytes(), str(path)).records}
        return _make_graph(records)
    if (folder / STATUS).is_file():
        build = BuildFolder(folder)
        status = build.read_status() or {}
        stages = status.get("stages")
        current = [
            stage["record"]
            for stage in (stages.values() if isinstance(stages, dict) else ())
            if isinstance(stage, dict) and isinstance(stage.get("record"), str)
        ]
        return _select(current, build.read_records())
    if (folder / RECORD).is_file():
        record = read_record(folder)
        parents = folder.resolve().parents  # a build's outputs lie in outputs/STAGE/KEY
        records = BuildFolder(parents[2]).read_records() if len(parents) > 2 else {}
        return _select([record.identity], {**records, record.identity: record})
    raise LineageError(f"{folder} has no {CHAIN}, {STATUS} or {RECORD}: it is no release, build or output.")


def walk_tree(graph: Graph) -> Iterator[TreeLine]:
    """The lines of the tree, roots first; what stands twice is shown whole the first time."""
    shown: set[str] = set()

    def walk(identity: str, depth: int, role: str) -> Iterator[TreeLine]:
        record = graph.records[identity]
        is_repeated = identity in shown and bool(record.inputs)
        yield TreeLine(depth, role, record.name, record.kind, identity, record.licences, is_repeated)
        if is_repeated:
            return
        shown.add(identity)
        for item in record.inputs:
            if item.record:
                yield from walk(item.record, depth + 1, item.role)
            else:
                yield TreeLine(depth + 1, item.role, item.name, "", item.digest, ())

    for root in graph.roots:
        yield from walk(root, 0, "")


def make_dot(graph: Graph) -> str:
    """The graph in Graphviz' language, inputs above outputs."""
    lines = ["digraph lineage {", '  node [shape=box, fontname="sans-serif"];']
    for identity, record in graph.records.items():
        label = f"{record.name}\\n{record.kind} {identity[:12]}\\n{', '.join(record.licences)}"
        lines.append(f"  {_quote(identity)} [label={_quote(label)}];")
        for item in record.inputs:
            origin = item.record or item.digest
            if item.record is None:
                outside = f"{item.name}\\n{origin[:12]}"
                lines.append(f"  {_quote(origin)} [label={_quote(outside)}, style=dashed];")
            lines.append(f"  {_quote(origin)} -> {_quote(identity)} [label={_quote(item.role)}];")
    return "\n".join([*lines, "}"])


def _quote(text: str) -> str:
    # Backslashes stay: `\n` in a label is Graphviz' line break; names hold none (records check nothing of them).
    return '"' + text.replace('"', '\\"') + '"'


def _select(roots: list[str], records: dict[str, Record]) -> Graph:
    needed: dict[str, Record] = {}
    pending = list(roots)
    while pending:
        identity = pending.pop()
        if identity in needed:
            continue
        if identity not in records:
            raise LineageError(f"The record {identity[:12]} is missing.")
        needed[identity] = records[identity]
        pending += [item.record for item in needed[identity].inputs if item.record]
    return _make_graph(needed)


def _make_graph(records: dict[str, Record]) -> Graph:
    used = {item.record for record in records.values() for item in record.inputs if item.record}
    return Graph(tuple(identity for identity in records if identity not in used), records)
