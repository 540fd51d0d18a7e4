"""The kinds of stages, a module for each room: the only place that knows all rooms.

Each room is imported when one of its stages runs.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from commonweight.workshop.recipe.stage_kind import StageKind
from commonweight.workshop.recipe.stages import alignment, data, evals, export, heads, lessons, training

AnyStage = Annotated[
    data.SourceStage
    | data.EvaluationSetStage
    | data.FilterStage
    | data.MixStage
    | alignment.GenerateStage
    | alignment.CritiqueStage
    | alignment.ReviseStage
    | alignment.SelectStage
    | lessons.RecoverStage
    | lessons.ToolLoopStage
    | lessons.PairStage
    | training.TokenizerStage
    | training.PretrainStage
    | training.SftStage
    | training.PreferenceStage
    | training.AdapterStage
    | export.ImportStage
    | export.ExportStage
    | evals.EvaluateStage
    | evals.CompareStage
    | heads.GuardStage,
    Field(discriminator="kind"),
]

KINDS: Mapping[str, StageKind] = {
    kind.name: kind for room in (data, alignment, lessons, training, export, evals, heads) for kind in room.KINDS
}
"""All kinds by name."""
