"""The provenance gate: which material may be used, by its licence, its generator and the policy. Fails closed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from commonweight.lineage.digests import LineageError
from commonweight.lineage.generators import find_generator
from commonweight.lineage.licence_texts import LicenceText, find_contradiction
from commonweight.lineage.licences import find_licence
from commonweight.lineage.record import Decision

Content = Literal["text", "prompts", "answers", "weights"]


class ProvenancePolicy(BaseModel):
    """What a recipe decides about material that is neither clearly free nor clearly forbidden."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    use: Literal["commercial", "research"] = "commercial"
    """What the output may be used for: non-commercial material is for ``research`` only."""
    generated_prompts: Literal["allow", "block"] = "block"
    """Prompts that a model wrote, whatever its terms; answers are decided by its terms alone."""
    share_alike: Literal["propagate", "attribute", "block"] = "block"
    """Share-alike material: the output carries its licence, names it only, or does without it."""


@dataclass(frozen=True)
class Material:
    """Rows, or weights, of one origin."""

    source: str
    content: Content
    licence: str | None
    generator: str | None
    """None: people wrote it. ``unknown`` or a name outside the table: not known."""
    rows: int
    rows_digest: str | None = None
    digest: str | None = None
    """SHA-256 of the file or folder it came from."""
    texts: tuple[LicenceText, ...] = ()
    """What comes with it and speaks of its licence."""
    is_test_split: bool = False
    """Its publisher keeps it apart for testing."""


@dataclass(frozen=True)
class EvaluationSet:
    """A set that something is measured on."""

    name: str
    digest: str
    rows: frozenset[str] = frozenset()
    """Ids of its rows, where they are to be compared."""


def check_material(
    materials: Iterable[Material],
    policy: ProvenancePolicy,
    evaluation_sets: Sequence[EvaluationSet] = (),
    row_ids: Mapping[str, frozenset[str]] | None = None,
) -> tuple[Decision, ...]:
    """Decide on every material that trains, validates or calibrates something.

    Args:
        evaluation_sets: what the same thing is measured on.
        row_ids: ids of the rows of each source, to be compared with those of the evaluation sets.

    Returns:
        One decision a material and rule that has something to say; at least one a material.
    """
    decisions: list[Decision] = []
    for material in materials:
        verdicts = list(_check(material, policy))
        overlap = _find_overlap(material, evaluation_sets, (row_ids or {}).get(material.source, frozenset()))
        if overlap:
            verdicts.append(("evaluation-set", "block", overlap))
        if all(verdict == "pass" for _, verdict, _ in verdicts):
            verdicts.append(("licence", "pass", f"{material.licence} permits it"))
        decisions += [
            Decision(
                rule=rule,
                verdict="block" if verdict == "block" else "pass",
                source=material.source,
                licence=material.licence,
                generator=material.generator,
                content=material.content,
                rows=material.rows,
                rows_digest=material.rows_digest,
                reason=reason,
            )
            for rule, verdict, reason in verdicts
        ]
    return tuple(decisions)


def require_material(decisions: Iterable[Decision]) -> None:
    """Stop where a decision blocks.

    Raises:
        LineageError: names every source that is blocked, its rows and why.
    """
    blocked = [decision for decision in decisions if decision.verdict == "block"]
    if blocked:
        raise LineageError(" ".join(describe_decision(decision) for decision in blocked))


def describe_decision(decision: Decision) -> str:
    """One sentence about a decision."""
    verb = "is blocked" if decision.verdict == "block" else "passes"
    count = f"{decision.rows} rows" if decision.content != "weights" else "weights"
    return (
        f"{decision.source} ({count}, {decision.content}) {verb} by the rule {decision.rule}: {decision.reason}."
    )


def _check(material: Material, policy: ProvenancePolicy) -> Iterable[tuple[str, str, str]]:
    yield from _check_licence(material, policy)
    yield from _check_generator(material, policy)
    if material.is_test_split:
        yield "evaluation-set", "block", "its publisher keeps it for testing, so it trains and calibrates nothing"


def _check_licence(material: Material, policy: ProvenancePolicy) -> Iterable[tuple[str, str, str]]:
    licence = find_licence(material.licence)
    if licence is None:
        stated = f"the licence {material.licence!r} is not known" if material.licence else "it has no licence"
        yield "licence", "block", stated
        return
    if contradiction := find_contradiction(licence.id, material.texts):
        yield "licence-text", "block", contradiction.rstrip(".")
    if not licence.commercial and policy.use == "commercial":
        yield (
            "non-commercial",
            "block",
            f"{licence.id} permits no commercial use, and the recipe is for commercial use",
        )
    if not licence.adaptations:
        yield "adaptations", "block", f"{licence.id} permits no adaptations"
    if licence.kind == "share-alike":
        match policy.share_alike:
            case "block":
                yield "share-alike", "block", f"{licence.id} asks for the same licence, which the recipe blocks"
            case "propagate":
                yield "share-alike", "pass", f"{licence.id} goes on to the output, as the recipe decides"
            case "attribute":
                yield "share-alike", "pass", f"{licence.id} is named in the output, as the recipe decides"


def _check_generator(material: Material, policy: ProvenancePolicy) -> Iterable[tuple[str, str, str]]:
    if material.generator is None or material.content == "weights":
        return
    if material.content == "prompts":
        if policy.generated_prompts == "block":
            yield (
                "generated-prompts",
                "block",
                f'written by "{material.generator}", and the recipe blocks such prompts',
            )
        else:
            yield (
                "generated-prompts",
                "pass",
                f'written by "{material.generator}", which the recipe allows',
            )
        return
    terms = find_generator(material.generator)
    if terms is None:
        yield (
            "generator",
            "block",
            f'written by "{material.generator}", whose terms are not known',
        )
    elif terms.answers == "forbid":
        yield "generator", "block", f'written by "{material.generator}" ({terms.name}), and {terms.reason}'
    else:
        yield "generator", "pass", f'written by "{material.generator}" ({terms.name}), and {terms.reason}'


def _find_overlap(
    material: Material, evaluation_sets: Iterable[EvaluationSet], rows: frozenset[str]
) -> str | None:
    for evaluated in evaluation_sets:
        if material.digest is not None and material.digest == evaluated.digest:
            return f"it is the evaluation set {evaluated.name}"
        if shared := rows & evaluated.rows:
            return f"{len(shared)} of its rows are in the evaluation set {evaluated.name}"
    return None


def list_generator_licences(generators: Iterable[str]) -> tuple[str, ...]:
    """Licences that the terms of generators of answers ask for in what they trained."""
    terms = [find_generator(name) for name in generators]
    return tuple(sorted({found.licence for found in terms if found is not None and found.licence is not None}))
