"""The bill of material: CycloneDX 1.6 JSON about the model, its weights, data and ancestors."""

import uuid
from typing import Any

from commonweight.workshop.release.documents import ReleaseError, encode_document
from commonweight.workshop.release.evidence import Evidence
from commonweight.workshop.release.figures import Figure
from commonweight.workshop.release.layout import BOM
from commonweight.workshop.release.notices import Source, list_sources

_NAMESPACE = uuid.UUID("6f6ad0c6-1b54-5f53-9d5e-6c1f9f6f2c11")
_NOT_SPDX = frozenset({"OpenRAIL", "WordNet"})


def make_bom(evidence: Evidence) -> bytes:
    """The bytes of ``bom.cdx.json``; its serial number follows from the lineage."""
    declaration = evidence.declaration
    sources = list_sources(evidence.material)
    data = [source for source in sources if source.content != "weights"]
    serial = uuid.uuid5(_NAMESPACE, f"{evidence.chain.head} {declaration.name} {declaration.date}")
    model: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": declaration.name,
        "version": str(declaration.date),
        "description": declaration.description,
        "licenses": [_name_licence(declaration.licence)],
        "modelCard": {
            "modelParameters": {
                "task": declaration.pipeline_tag,
                "datasets": [{"ref": _make_reference(source)} for source in data],
            },
            "quantitativeAnalysis": {
                "performanceMetrics": [
                    _make_metric(figure) for figure in evidence.figures if figure.subject == "release"
                ]
            },
            "considerations": {"technicalLimitations": [declaration.limitations]},
        },
        "properties": [
            {"name": "commonweight:lineage:head", "value": evidence.chain.head},
            {"name": "commonweight:lineage:head-before-export", "value": evidence.head},
        ],
    }
    ancestors = [_make_ancestor(source) for source in sources if source.content == "weights"]
    if declaration.base_model and not ancestors:
        ancestors = [{"type": "machine-learning-model", "name": declaration.base_model}]
    if ancestors:
        model["pedigree"] = {"ancestors": ancestors}
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"timestamp": f"{declaration.date}T00:00:00Z", "component": model},
        "components": [*_list_files(evidence), *(_make_data(source) for source in data)],
    }
    return encode_document(document)


def check_bom(data: bytes) -> None:
    """Check a document against CycloneDX's schema.

    Raises:
        ReleaseError: it does not fit.
    """
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    if (problem := JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode())) is not None:
        raise ReleaseError(f"{BOM} does not fit CycloneDX 1.6: {str(problem.data)[:200]}.")


def _list_files(evidence: Evidence) -> list[dict[str, Any]]:
    return [
        {
            "type": "file",
            "bom-ref": f"file:{name}",
            "name": name,
            "hashes": [{"alg": "SHA-256", "content": facts.sha256}],
            "properties": [
                {"name": "commonweight:bytes", "value": str(facts.size)},
                {"name": "commonweight:parameters", "value": str(facts.parameters)},
            ],
        }
        for name, facts in sorted(evidence.declaration.weights.items())
    ]


def _make_ancestor(source: Source) -> dict[str, Any]:
    ancestor: dict[str, Any] = {
        "type": "machine-learning-model",
        "name": source.name,
        "licenses": [_name_licence(source.licence)],
    }
    return ancestor | _list_hashes(source)


def _make_data(source: Source) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "data",
        "bom-ref": _make_reference(source),
        "name": source.name,
        "licenses": [_name_licence(source.licence)],
        "data": [{"type": "dataset", "name": source.name, "description": _describe_rows(source)}],
        "properties": [{"name": "commonweight:generator", "value": source.generator}],
    }
    return component | _list_hashes(source)


def _list_hashes(source: Source) -> dict[str, Any]:
    return {"hashes": [{"alg": "SHA-256", "content": source.digest}]} if source.digest else {}


def _make_metric(figure: Figure) -> dict[str, Any]:
    metric: dict[str, Any] = {
        "type": f"{figure.task} {figure.metric}",
        "value": repr(figure.value),
        "slice": f"{figure.dataset.name}, n={figure.n}",
    }
    if figure.low is not None and figure.high is not None:
        metric["confidenceInterval"] = {"lowerBound": repr(figure.low), "upperBound": repr(figure.high)}
    return metric


def _describe_rows(source: Source) -> str:
    return f"{source.rows} rows of {source.content}"


def _make_reference(source: Source) -> str:
    return f"data:{source.name}:{source.content}:{source.licence}:{source.generator}:{source.rows}"


def _name_licence(licence: str) -> dict[str, Any]:
    is_spdx = not licence.startswith("LicenseRef-") and licence not in _NOT_SPDX
    return {"license": {"id": licence} if is_spdx else {"name": licence}}
