"""Policies of the gate: the rows that a release is held against, read from YAML."""

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from commonweight.workshop.release.documents import ReleaseError, quote, read_file, validate_model
from commonweight.workshop.release.figures import Id, Words
from commonweight.workshop.release.settings import Line, Name

Operator = Literal["<=", ">=", "=="]
_POLICIES = files("commonweight.workshop.release") / "policies"
_MAX_POLICY_BYTES = 1 << 20


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Name
    statement: Line
    """What a pass says."""
    required: bool = True
    """Whether anything else than a pass blocks."""


class ParityRow(_Row):
    """A value of the parity report against a bound."""

    kind: Literal["parity"]
    path: Annotated[str, Field(pattern=r"^[A-Za-z0-9_*-]+(\.[A-Za-z0-9_*-]+)*$", max_length=200)]
    """Keys from the top of the report, with dots; ``*`` stands for every key, and the worst value counts."""
    operator: Operator
    bound: FiniteFloat | None = None
    bound_path: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$", max_length=200)] | None = None
    """Where the bound stands in the report, instead of ``bound``."""

    @model_validator(mode="after")
    def _check_bound(self) -> "ParityRow":
        if (self.bound is None) == (self.bound_path is None):
            raise ValueError("needs either bound or bound_path")
        return self


class FigureRow(_Row):
    """A measured figure, or an end of its interval, against a bound."""

    kind: Literal["figure"]
    task: Id
    metric: Words
    part: Literal["value", "low", "high"] = "value"
    operator: Operator
    bound: FiniteFloat
    relative_to: Literal["base"] | None = None
    """``base``: the bound is on the difference to the value of the model that this one was made from."""
    minimum_n: int = Field(default=1, ge=1)
    """Samples that the figure needs at least, to be evidence."""


class CheckRow(_Row):
    """A check without a bound."""

    kind: Literal["provenance", "licences", "lineage", "evaluation-sets"]


class ComputeRow(_Row):
    """Passes by compute where all training took less than a bound: 6 operations a parameter and token."""

    kind: Literal["compute"]
    bound: FiniteFloat = Field(gt=0)


Row = Annotated[ParityRow | FigureRow | CheckRow | ComputeRow, Field(discriminator="kind")]


class Policy(BaseModel):
    """A gate's policy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    description: Line
    rows: tuple[Row, ...] = Field(min_length=1, max_length=200)

    @model_validator(mode="after")
    def _check_ids(self) -> "Policy":
        ids = [row.id for row in self.rows]
        if twice := {name for name in ids if ids.count(name) > 1}:
            raise ValueError(f"has the row {min(twice)} twice")
        return self


def read_policy(name: str) -> Policy:
    """Read a policy: one that ships, by its name, or a file.

    Raises:
        ReleaseError: there is none, or it is malformed.
    """
    if name in list_policies():
        data = (_POLICIES / f"{name}.yaml").read_bytes()
    else:
        data = read_file(Path(name), _MAX_POLICY_BYTES)
    try:
        # Aliases can make a small file a huge value.
        content = yaml.load(data, _PolicyLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}," if mark is not None else ""
        raise ReleaseError(f"The policy {quote(Path(name).name)}{line} is not valid YAML.") from error
    return validate_model(Policy, content, f"The policy {quote(Path(name).name)}")


def list_policies() -> tuple[str, ...]:
    """Names of the policies that ship."""
    return tuple(sorted(item.name.removesuffix(".yaml") for item in _POLICIES.iterdir()))


class _PolicyLoader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)
