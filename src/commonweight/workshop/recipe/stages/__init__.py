"""The kinds of stages, a module for each room: the only place that knows all rooms.

Each room is imported when one of its stages runs.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from commonweight.workshop.recipe.stage_kind import StageKind
from commonweight.workshop.recipe.stages import data, evals, export, training

AnyStage = Annotated[
    data.SourceStage
    | data.EvaluationSetStage
    | data.FilterStage
    | data.MixStage
    | training.TokenizerStage
    | training.PretrainStage
    | training.SftStage
    | export.ImportStage
    | export.ExportStage
    | evals.EvaluateStage
    | evals.CompareStage,
    Field(discriminator="kind"),
]

KINDS: Mapping[str, StageKind] = {
    kind.name: kind for room in (data, training, export, evals) for kind in room.KINDS
}
"""All kinds by name."""
