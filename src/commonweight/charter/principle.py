"""Data model of charters and principles."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from commonweight.charter.phrases import MAX_PRINCIPLE_PHRASES, Phrase

Tier = Literal["hard", "safety", "ethics", "guidelines"]
"""Tier of a principle. Earlier tiers take precedence; hard principles cannot be changed."""
Severity = Literal["critical", "high", "medium", "low"]
Place = Literal[
    "input", "output", "thinking", "tool_input", "tool_result", "system", "document", "history", "tools"
]
"""Place of text in an exchange. ``input`` is the user's last turn, ``tool_input`` the model's call,
``tool_result`` the tool's output, ``document`` a document or search result wherever it stands, ``history`` what
was said in earlier turns, as the client supplies it, and ``tools`` the definitions of tools."""
Action = Literal["refuse", "log"]
Mode = Literal["enforce", "shadow", "off"]
"""``shadow`` decides and records, and changes nothing."""
Category = Literal["cyber", "bio", "frontier_llm", "reasoning_extraction", "general_harms"]
"""The Messages API's ``stop_details.category``."""
Hazard = Literal["vcr", "ncr", "src", "cse", "iwp", "dfm", "prv", "ipv", "ssh", "hte", "sxc", "spc"]
"""MLCommons AILuminate 1.0: violent, non-violent and sex-related crimes, child sexual exploitation, indiscriminate
weapons, defamation, privacy, intellectual property, suicide and self-harm, hate, sexual content, specialised
advice."""
Overrider = Literal["nobody", "provider", "operator"]
"""Role that may set a principle aside: provider for the whole server, operator for one key."""

Id = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=40)]
Share = Annotated[float, Field(gt=0, lt=1)]


class _Part(BaseModel):
    """Base of the models: strict, frozen, without further fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Reference(_Part):
    """Reference to a text that is not written down: data source and prefix of its SHA-256."""

    source: str
    sha256: str


class Violating(_Part):
    """Example of a violation: a reference, or outside of the hard and safety tiers the text itself."""

    text: Reference | str


class Complying(_Part):
    """Example of compliance, with a reason if it is a borderline case."""

    text: str
    why: str | None = None


class Requirement(_Part):
    """Requirement that ``charter test`` measures on labelled texts."""

    data: str
    """The name of a source."""
    most_refused: Share | None = None
    """Maximum share of benign texts that is refused."""
    least_refused: Share | None = None
    """Minimum share of harmful texts that is refused."""


class Settings(_Part):
    """Machine-readable settings of a principle."""

    id: Id
    tier: Tier
    severity: Severity
    category: Category | None = None
    hazards: frozenset[Hazard] = frozenset()
    applies_to: dict[Place, Action] = Field(min_length=1)
    """Action by place. Other places are not screened."""
    phrases: tuple[Phrase, ...] = Field((), max_length=MAX_PRINCIPLE_PHRASES)
    """Words that must not stand in any of these places, whatever is meant by them."""
    mode: Mode = "enforce"
    overridable_by: Overrider = "nobody"
    tests: tuple[Requirement, ...] = ()
    """Requirements on this principle alone."""


class Principle(Settings):
    """A principle: settings, prose and examples."""

    title: str
    restricts: str
    permits: str
    message: str
    """Explanation in refusals, which may offer an alternative."""
    violating: tuple[Violating, ...] = ()
    complying: tuple[Complying, ...] = ()

    @property
    def violating_texts(self) -> list[str]:
        """The examples of violations that are written down."""
        return [one.text for one in self.violating if isinstance(one.text, str)]


class Front(_Part):
    """Front matter of a charter."""

    schema_: Literal["charter/1", "charter/2"] = Field(alias="schema")
    """``charter/1`` knows five places; see ``charter.places``."""
    id: Id
    version: str = Field(min_length=1)
    licence: str = Field(min_length=1)
    derived_from: tuple[str, ...] = ()
    on_judge_failure: dict[Severity, Literal["refuse", "allow"]]
    """Decision by severity when the judge gives no answer."""
    unreadable: Literal["allow", "judge", "refuse"] = "allow"
    """Decision on input in a language that the heads cannot read. Where there is no judge, ``judge`` allows."""
    retired: frozenset[Id] = frozenset()
    """Ids of principles that were taken out. They are never used again, because old verdicts name them."""
    tests: tuple[Requirement, ...] = ()
    """Requirements on all principles together."""


class Charter(Front):
    """A charter: front matter and principles."""

    title: str
    preamble: str
    principles: tuple[Principle, ...]
    sha256: str
    """SHA-256 of the file in hexadecimal, stamped into every verdict."""
