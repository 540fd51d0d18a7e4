"""Verdicts of the guard on an exchange. They hold no text, so that all of them may be kept."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from commonweight.charter.principle import Action, Category, Mode, Place
from commonweight.guard.heads.bundle import Strictness
from commonweight.guard.heads.scorer import Lowering

Stage = Literal["text", "states", "ensemble", "judge", "phrase", "language"]
"""What decided: heads on the text, heads on the model's states, both together, the judge, a phrase, or that the
text is in a language that no head reads."""


@dataclass(frozen=True)
class Verdict:
    """Finding that an exchange violates a principle."""

    charter: str
    """SHA-256 of the charter's file."""
    principle: str
    """Its id."""
    place: Place
    stage: Stage
    score: float
    """The probability that something is violated, as the deciding stage gives it."""
    threshold: float
    """What the score reached."""
    action: Action
    mode: Mode
    block: str | None = None
    """Path of the block that it is about: of the request, or of the answer. None: it cannot be told."""
    span: tuple[int, int] | None = None
    """Start and exclusive end in characters of the block's text as it was sent. None: they cannot be told."""
    tool: str | None = None
    """Name of the tool that the block belongs to."""
    digest: str | None = None
    """Keyed digest of the text that was scored; None for answers."""
    lacks_judgement: bool = False
    """The judge failed, and its failure refuses. Of the exchange it says nothing."""
    category: Category | None = None
    message: str = ""
    strictness: Strictness = "standard"
    """The operating point that the threshold belongs to."""
    lowered_by: tuple[Lowering, ...] = ()
    """Why the threshold is lower than that."""

    @property
    def refuses(self) -> bool:
        """Whether the exchange is refused. In the mode ``shadow`` it would have been."""
        return self.action == "refuse" and self.mode == "enforce"

    def to_record(self) -> dict[str, Any]:
        """Make the record that is stored and reported, without what the charter says."""
        fields = asdict(self)
        del fields["message"], fields["category"]
        fields["score"], fields["threshold"] = round(self.score, 4), round(self.threshold, 4)
        return fields


@dataclass
class Findings:
    """All verdicts on one exchange, with scores and timings."""

    charter: str
    bundle: str
    """Digest of the compiled heads."""
    verdicts: list[Verdict]
    input_score: float | None = None
    """The highest probability seen on the way in; None: nothing was scored."""
    output_score: float | None = None
    """The same for the answer."""
    noise: float | None = None
    """Surprise of the served model at the end of the user's turn, see ``guard.heads.noise``; None: it was not
    asked."""
    language: str | None = None
    """Of the input, by its ISO 639 code, where it is plain."""
    is_read: bool = True
    """Whether the heads can read that language. Where they cannot, ``input_score`` says nothing."""
    encoded: bool = False
    """Whether the first look was doubtful enough for the text encoder."""
    escalated: bool = False
    """Whether the judge was asked."""
    closed: int = 0
    """Messages of closed exchanges, which were neither screened nor shown to the model."""
    hits: int = 0
    """Scores of texts that were known from an earlier request."""
    misses: int = 0
    """Scores of texts that were computed."""
    seconds: float = 0.0
    """What scoring took of the event loop's and the encoder's time."""

    @property
    def refusal(self) -> Verdict | None:
        """The verdict that ended the exchange, if one did."""
        return next((verdict for verdict in self.verdicts if verdict.refuses), None)

    def to_record(self) -> dict[str, Any]:
        """Make the record that is stored with the usage of a turn."""
        return {
            "charter": self.charter,
            "bundle": self.bundle,
            "verdicts": [verdict.to_record() for verdict in self.verdicts],
            "input_score": _round_score(self.input_score),
            "output_score": _round_score(self.output_score),
            "noise": _round_score(self.noise),
            "language": self.language,
            "is_read": self.is_read,
            "encoded": self.encoded,
            "escalated": self.escalated,
            "closed": self.closed,
            "scores": {"hits": self.hits, "misses": self.misses},
            "seconds": round(self.seconds, 4),
        }


def _round_score(score: float | None) -> float | None:
    return None if score is None else round(score, 4)
