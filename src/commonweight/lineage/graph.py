"""The graph of records that an output, a build or a release depends on: found on disk, as a tree, as Graphviz."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from commonweight.lineage.build_folder import STATUS, BuildFolder
from commonweight.lineage.chain import CHAIN, decode_chain, select_records
from commonweight.lineage.digests import RECORD, LineageError
from commonweight.lineage.record import Input, Record, read_record

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
    is_imported: bool = False
    """It was taken from a run elsewhere."""


def read_graph(folder: Path) -> Graph:
    """Read the graph of a release, a build folder or one output of a build.

    Raises:
        LineageError: the folder is none of these, or a record is missing or changed.
    """
    graph = _read(folder)
    if not graph.records:
        raise LineageError(f"{folder} holds no records: nothing is built there.")
    return graph


def _read(folder: Path) -> Graph:
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
        return _make_graph(select_records(current, build.read_records()))
    if (folder / RECORD).is_file():
        record = read_record(folder)
        parents = folder.resolve().parents  # a build's outputs lie in outputs/STAGE/KEY
        records = BuildFolder(parents[2]).read_records() if len(parents) > 2 else {}
        return _make_graph(select_records([record.identity], {**records, record.identity: record}))
    raise LineageError(f"{folder} has no {CHAIN}, {STATUS} or {RECORD}: it is no release, build or output.")


def walk_tree(graph: Graph) -> Iterator[TreeLine]:
    """The lines of the tree, roots first; what stands twice is shown whole the first time."""
    shown: set[str] = set()
    # A list of what is left, not recursion: chains of releases come from outside and may be long.
    pending = [Input(role="", name="", digest=root, record=root) for root in reversed(graph.roots)]
    depths = [0] * len(pending)
    while pending:
        item, depth = pending.pop(), depths.pop()
        if item.record is None:
            yield TreeLine(depth, item.role, item.name, "", item.digest, ())
            continue
        record = graph.records[item.record]
        is_repeated = item.record in shown and bool(record.inputs)
        yield TreeLine(
            depth,
            item.role,
            record.name,
            record.kind,
            item.record,
            record.licences,
            is_repeated,
            record.is_imported,
        )
        if not is_repeated:
            shown.add(item.record)
            pending += reversed(record.inputs)
            depths += [depth + 1] * len(record.inputs)


def make_dot(graph: Graph) -> str:
    """The graph in Graphviz' language, inputs above outputs."""
    lines = ["digraph lineage {", '  node [shape=box, fontname="sans-serif"];']
    for identity, record in graph.records.items():
        kind = f"{record.kind}, imported" if record.is_imported else record.kind
        label = _quote(record.name, f"{kind} {identity[:12]}", ", ".join(record.licences))
        lines.append(f"  {_quote(identity)} [label={label}];")
        for item in record.inputs:
            origin = item.record or item.digest
            if item.record is None:
                lines.append(f"  {_quote(origin)} [label={_quote(item.name, origin[:12])}, style=dashed];")
            lines.append(f"  {_quote(origin)} -> {_quote(identity)} [label={_quote(item.role)}];")
    return "\n".join([*lines, "}"])


def _quote(*lines: str) -> str:
    """A string of Graphviz' language; what a release from elsewhere calls its records ends no string."""
    escaped = (line.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") for line in lines)
    return '"' + "\\n".join(escaped) + '"'


def _make_graph(records: dict[str, Record]) -> Graph:
    used = {item.record for record in records.values() for item in record.inputs if item.record}
    return Graph(tuple(identity for identity in records if identity not in used), records)
