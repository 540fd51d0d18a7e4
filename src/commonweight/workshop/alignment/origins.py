"""Where answers come from: the model's id and licences, and whether its terms let them train another model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from commonweight.lineage.provenance import Material, ProvenancePolicy, check_material, require_material
from commonweight.lineage.record import Decision, Record
from commonweight.workshop.data.manifest import read_provenance

_JOIN = " AND "


@dataclass(frozen=True)
class ModelOrigin:
    """A model whose answers become rows."""

    name: str
    """Of the stage that exported it, or of the endpoint."""
    generators: tuple[str, ...]
    """Models that are in it: its own id, and what its weights and training data come from."""
    licences: tuple[str, ...]

    @property
    def generator(self) -> str:
        """Id of the model, as rows name it: that of the only one that it is made of, else one of its own."""
        return self.generators[0] if len(self.generators) == 1 else f"commonweight/{self.name}"


def read_origin(name: str, record: Record) -> ModelOrigin:
    """The origin of a model by the record of its export."""
    return ModelOrigin(name, record.generators or (f"commonweight/{name}",), record.licences)


def check_origin(origin: ModelOrigin, rows: int, policy: ProvenancePolicy) -> tuple[Decision, ...]:
    """Decide whether answers of a model may train another one.

    Raises:
        LineageError: its licence or the terms of a model that it is made of forbid that, or are not known.
    """
    licences: Sequence[str | None] = origin.licences or (None,)
    every = [
        Material(origin.name, "answers", licence, generator, rows)
        for licence in licences
        for generator in origin.generators
    ]
    require_material(check_material(every, policy))
    return check_material([one for one in every if one.licence == licences[0]], policy)


def check_rows(folder: Path, policy: ProvenancePolicy) -> None:
    """Stop where rows of a dataset folder may train nothing; prompts by a model are as the policy decides.

    Raises:
        LineageError: names the sources and why.
    """
    require_material(
        check_material(
            [
                Material(
                    source=group.source,
                    content="prompts" if group.kind == "prompt" else "answers",
                    licence=licence or None,
                    generator=group.generator,
                    rows=group.rows,
                    digest=group.sha256,
                )
                for group in read_provenance(folder)
                for licence in group.licence.split(_JOIN)
            ],
            policy,
        )
    )


def combine_licences(*licences: str) -> str:
    """The licences of a row's parts as one expression."""
    return _JOIN.join(sorted({one for each in licences for one in each.split(_JOIN)}))
