"""The model card: README.md with the hub's metadata, every number of it computed from the release's evidence."""

import re
from collections.abc import Iterable, Mapping, Sequence

import yaml

from commonweight.lineage.record import Record
from commonweight.workshop.data.locations import HubPath, parse_location
from commonweight.workshop.release.evidence import Evidence
from commonweight.workshop.release.figures import Figure
from commonweight.workshop.release.gate import TRAINING_KINDS, Gate, RowResult
from commonweight.workshop.release.layout import EVALUATION_FOLDER, GATE, NOTICE, PARITY, SIGNATURE, WEIGHTS
from commonweight.workshop.release.notices import list_sources
from commonweight.workshop.release.obligations import name_licences

_HUB_LICENCES = {
    "Apache-2.0": "apache-2.0",
    "MIT": "mit",
    "CC0-1.0": "cc0-1.0",
    "CC-BY-3.0": "cc-by-3.0",
    "CC-BY-4.0": "cc-by-4.0",
    "CC-BY-SA-3.0": "cc-by-sa-3.0",
    "CC-BY-SA-4.0": "cc-by-sa-4.0",
    "CC-BY-NC-3.0": "cc-by-nc-3.0",
    "CC-BY-NC-4.0": "cc-by-nc-4.0",
    "CC-BY-NC-SA-3.0": "cc-by-nc-sa-3.0",
    "CC-BY-NC-SA-4.0": "cc-by-nc-sa-4.0",
    "BSD-2-Clause": "bsd-2-clause",
    "BSD-3-Clause": "bsd-3-clause",
    "Unlicense": "unlicense",
    "OpenRAIL": "openrail",
}
"""Licences that the hub knows, by our names; any other is ``other`` there, with a name and a link."""
_IMPORTS = frozenset({"import", "base"})
"""Kinds of records of imported weights, which were trained elsewhere."""
_EXACT = 10**15
"""Whole numbers from here on are shown rounded."""


def make_card(evidence: Evidence, gate: Gate) -> bytes:
    """The bytes of ``README.md``."""
    declaration = evidence.declaration
    metadata = yaml.safe_dump(make_metadata(evidence), sort_keys=False, allow_unicode=False, width=10_000)
    sections: list[Sequence[str]] = [
        ["---", metadata.rstrip("\n"), "---", "", f"# {_escape(declaration.title)}", ""],
        [declaration.description, ""],
        [*_describe_gate(gate), ""],
        ["## Files", "", *_make_files_table(evidence), ""],
        ["## Evaluation", "", *_make_figures_table(evidence), ""],
        [*_make_gate_table(gate.rows), ""],
        ["## Material", "", *_make_sources_table(evidence), ""],
        ["## Limitations", "", declaration.limitations, ""],
        ["## Licence", "", *_describe_licence(evidence), ""],
        ["## Lineage", "", *_describe_lineage(evidence)],
    ]
    return ("\n".join(line for section in sections for line in section) + "\n").encode()


def make_metadata(evidence: Evidence) -> dict[str, object]:
    """The card's metadata, in the hub's words."""
    declaration = evidence.declaration
    licence = _HUB_LICENCES.get(declaration.licence)
    metadata: dict[str, object] = {"license": licence or "other"}
    if licence is None:
        metadata |= {"license_name": declaration.licence.lower(), "license_link": "LICENSE"}
    metadata["language"] = list(declaration.languages)
    metadata["pipeline_tag"] = declaration.pipeline_tag
    if declaration.base_model:
        is_trained = any(record.kind in TRAINING_KINDS - _IMPORTS for record in evidence.material)
        metadata["base_model"] = declaration.base_model
        metadata["base_model_relation"] = "finetune" if is_trained else "quantized"
    if datasets := sorted(set(_list_hub_datasets(evidence.material))):
        metadata["datasets"] = datasets
    metadata["tags"] = ["gguf", "commonweight"]
    measured = [f for f in evidence.figures if f.subject == "release"]
    if measured:
        results = [_make_result(figure) for figure in measured]
        metadata["model-index"] = [{"name": declaration.name, "results": results}]
    return metadata


def _list_hub_datasets(material: Iterable[Record]) -> Iterable[str]:
    """Ids of data sets on the hub that material was taken from; only those mean something there."""
    for record in material:
        try:
            location = parse_location(str(record.parameters.get("location", "")))
        except ValueError:
            continue
        if isinstance(location, HubPath):
            yield location.repo


def _make_result(figure: Figure) -> dict[str, object]:
    return {
        "task": {"type": "text-generation", "name": figure.task},
        "dataset": {"name": figure.dataset.name, "type": figure.dataset.name, "revision": figure.dataset.digest},
        "metrics": [{"type": figure.metric, "value": figure.value, "name": f"{figure.metric} (n={figure.n})"}],
    }


def _make_files_table(evidence: Evidence) -> Iterable[str]:
    yield "| file | bytes | parameters | SHA-256 |"
    yield "|---|---|---|---|"
    for name, facts in sorted(evidence.declaration.weights.items()):
        yield f"| {name} | {facts.size} | {facts.parameters} | {facts.sha256} |"
    yield ""
    yield "Each GGUF file holds the tokenizer and the chat template; `commonweight serve --model FILE` serves it."


def _make_figures_table(evidence: Evidence) -> Iterable[str]:
    if not evidence.figures:
        yield "Nothing was measured."
        return
    yield "| measured | task | metric | value | interval | n | failed | data | sampling | harness | date |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for f, file in zip(evidence.figures, evidence.measured_files, strict=True):
        interval = "n/a" if f.low is None or f.high is None else f"{f.low!r} to {f.high!r}"
        cells = (file or f.subject, f.task, f.metric, repr(f.value), interval, f.n, f.errors, f.dataset.name)
        method = (_describe(f.sampling), f.harness, f.date)
        yield "| " + " | ".join(_escape(str(cell)) for cell in (*cells, *method)) + " |"
    yield ""
    yield (
        "Intervals are of 95 %. n is what was counted, failed ones included: bytes for bits per byte, "
        "else samples or parts of them."
    )


def _make_gate_table(rows: Sequence[RowResult]) -> Iterable[str]:
    yield "| gate | result | value | bound | reason |"
    yield "|---|---|---|---|---|"
    for row in rows:
        result: str = "pass (by compute)" if row.by_compute else row.result
        if row.waiver:
            result = f"{row.result}, waived"
        elif not row.required:
            result += " (not required)"
        value = "n/a" if row.value is None else _format(row.value)
        bound = "n/a" if row.bound is None else f"{row.operator} {_format(row.bound)}"
        yield "| " + " | ".join(_escape(cell) for cell in (row.id, result, value, bound, row.reason)) + " |"


def _describe_gate(gate: Gate) -> Iterable[str]:
    yield f"Gate: policy {gate.policy.name}, {gate.verdict}, {gate.date} ({GATE})."
    for row in gate.rows:
        if row.waiver:
            waiver = row.waiver
            yield (
                f"Waived until {waiver.until}: {row.id} ({row.result}), by {_escape(waiver.name)}: "
                f"{_escape(waiver.reason)}."
            )


def _make_sources_table(evidence: Evidence) -> Iterable[str]:
    yield "| source | content | licence | written by | rows |"
    yield "|---|---|---|---|---|"
    for source in list_sources(evidence.material):
        is_model = source.content == "weights"
        origin = ("n/a", "n/a") if is_model else (source.generator, str(source.rows))
        cells = (source.name, source.content, source.licence, *origin)
        yield "| " + " | ".join(_escape(cell) for cell in cells) + " |"


def _describe_licence(evidence: Evidence) -> Iterable[str]:
    yield (
        f"{evidence.declaration.licence}. Licences of the material: {name_licences(evidence.export.licences)}. "
        f"Attributions and obligations: {NOTICE}."
    )


def _describe_lineage(evidence: Evidence) -> Iterable[str]:
    yield f"{len(evidence.chain.records)} records (lineage.jsonl), head {evidence.chain.head}."
    if imported := [
        _escape(f"{record.name} ({record.kind})") for record in evidence.material if record.is_imported
    ]:
        yield (
            f"Trained elsewhere, the weights imported: {', '.join(imported)}. "
            "That it ran as recorded is declared only."
        )
    yield f"Head before export, as in the metadata of the weights: {evidence.head}."
    yield f"Parity with the model in `{WEIGHTS}`: {PARITY}. Scores by sample, without texts: {EVALUATION_FOLDER}."
    yield f"Signature: {SIGNATURE}. Check with `commonweight verify FOLDER --trust KEY`."


def _describe(sampling: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(sampling.items()) if value is not None) or "n/a"


def _format(value: int | float | str) -> str:
    if isinstance(value, str) or abs(value) < _EXACT:
        return str(value)
    return f"{value:.3g}"


def _escape(text: str) -> str:
    return re.sub(r"([|\\`<>*_\[\]])", r"\\\1", " ".join(text.split()))
