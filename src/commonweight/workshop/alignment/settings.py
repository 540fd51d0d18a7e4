"""Settings of the alignment stages, and the one error that they raise. Imports no engine."""

from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from commonweight.lineage.errors import WorkshopError
from commonweight.workshop.data.settings import Label
from commonweight.workshop.settings import DEFAULT_CHARTER, Settings

ModelFileKind = Literal["F16", "Q8_0", "Q4_K_M"]


class AlignmentError(WorkshopError):
    """What stops an alignment stage: no fitting rows, terms that forbid it, a model that does not answer."""


class EndpointSettings(Settings):
    """A server that computes in place of the embedded engine."""

    kind: Literal["vllm", "llama-server"] = "vllm"
    url: str = Field(max_length=2000, exclude=True)
    """Where it is. It is in no key and no record: the same model may answer elsewhere tomorrow."""
    model: str | None = Field(default=None, min_length=1, max_length=2000)
    """GGUF file whose vocabulary and chat template the server's model has: a path relative to the recipe, or
    ``starter``; null: that of the stage ``model``."""
    generator: Label | None = None
    """Id of the model that answers there; null: that of the stage ``model``."""
    licence: str | None = Field(default=None, max_length=100)
    """The model's licence; null: those of the stage ``model``."""
    key_variable: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the environment variable that holds the key; null: the server needs none."""
    read_timeout: float = Field(default=300.0, ge=1, le=86_400)
    """Seconds that the server may be silent."""

    @model_validator(mode="after")
    def _check_url(self) -> Self:
        url = urlsplit(self.url)
        if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
            raise ValueError("the engine's url is written like http://127.0.0.1:8000")
        if url.username or url.password:
            raise ValueError("the engine's url holds no key: name an environment variable in key_variable")
        return self


class ModelSettings(Settings):
    """The model that answers, and how much it computes at once."""

    file: ModelFileKind = "Q8_0"
    """Which file of the export answers."""
    engine: EndpointSettings | None = None
    """A server that computes; null: the embedded engine."""
    context: int = Field(default=2048, ge=64, le=1_048_576)
    """Tokens of a prompt and its answer together; longer prompts are dropped."""
    parallel: int = Field(default=32, ge=1, le=1024)
    """Answers at the same time. The last bits of an engine's figures depend on how many run beside, and a drawn
    token can differ where two are equally likely: another number here can give other answers."""
    batch: int = Field(default=128, ge=1, le=65_536)
    """Answers between two writes to the disk: what a kill loses at most."""


class GenerateSettings(ModelSettings):
    """How prompts are answered."""

    samples: int = Field(default=1, ge=1, le=256)
    """Answers a prompt, each with a seed of its own."""
    max_tokens: int = Field(default=512, ge=1, le=1_048_576)
    temperature: float = Field(default=0.7, ge=0, le=2)
    top_p: float = Field(default=0.95, gt=0, le=1)
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    system: Literal["none", "principle", "charter"] = "none"
    """What the model reads before each prompt: nothing, the principle that is drawn for it, or the whole charter.
    It is no part of the rows."""
    charter: str = Field(default=DEFAULT_CHARTER, min_length=1, max_length=2000)
    """``default``, or a path relative to the recipe."""


class CritiqueSettings(ModelSettings):
    """How a model votes on answers."""

    charter: str = Field(default=DEFAULT_CHARTER, min_length=1, max_length=2000)
    """``default``, or a path relative to the recipe."""
    votes: int = Field(default=3, ge=1, le=99)
    """Votes an answer, each with a seed of its own; the majority decides."""
    reading: Literal["constrained", "last_line"] = "constrained"
    """``constrained``: the engine holds votes to yes or no. ``last_line``: the model writes its reasons first,
    and its last line is read."""
    max_tokens: int = Field(default=256, ge=8, le=65_536)
    """Of reasons and vote together, where votes are read from the last line."""
    temperature: float = Field(default=0.7, ge=0, le=2)
    seed: int = Field(default=0, ge=0, le=2**63 - 1)


class ReviseSettings(ModelSettings):
    """How answers are revised under a principle."""

    charter: str = Field(default=DEFAULT_CHARTER, min_length=1, max_length=2000)
    """``default``, or a path relative to the recipe."""
    method: Literal["critic", "compose"] = "critic"
    """``critic``: a model rewrites the answer under the principle's text. ``compose``: for models too small for
    that, the answer is composed from the principle's own words."""
    only_broken: bool = False
    """Revise only answers that a critique says break the principle, or could not decide on; the others stay."""
    most_opening_share: float = Field(default=0.1, gt=0, le=1)
    """Largest share of revised answers that may begin with the same eight words."""
    max_tokens: int = Field(default=256, ge=8, le=65_536)
    temperature: float = Field(default=0.7, ge=0, le=2)
    top_p: float = Field(default=0.95, gt=0, le=1)
    seed: int = Field(default=0, ge=0, le=2**63 - 1)


class SelectSettings(Settings):
    """Which answers are good enough to be learned."""

    expect: Literal["answer", "refusal"] = "answer"
    """``answer`` drops refusals, ``refusal`` everything else."""
    complete: bool = True
    """Drop answers that were cut off."""
    min_words: int = Field(default=5, ge=1, le=100_000)
    max_words: int = Field(default=1000, ge=1, le=100_000)
    most_repeated: float = Field(default=0.3, ge=0, le=1)
    """Largest share of an answer's four-word sequences that may be repetitions of earlier ones."""
    near_duplicate_similarity: float | None = Field(default=0.8, ge=0.6, le=1)
    """Drop answers that share so much of their five-word sequences with an earlier one; null: keep them."""
    best: Literal["medoid", "first"] = "medoid"
    """Of a prompt's samples that are left: the one whose words the others share most (minimum Bayes risk), or the
    first."""
    keep_samples: int = Field(default=1, ge=1, le=256)
    """Answers a prompt that are kept, the best ones."""

    @model_validator(mode="after")
    def _order_bounds(self) -> Self:
        if self.min_words > self.max_words:
            raise ValueError("min_words is above max_words, so no row would be left.")
        return self


class RecoverSettings(Settings):
    """How answers that were begun are turned away from."""

    file: ModelFileKind = "Q8_0"
    """Which file of the export has the tokenizer."""
    min_tokens: int = Field(default=5, ge=1, le=10_000)
    """Shortest beginning that is given, in the model's tokens; answers that are no longer are dropped."""
    max_tokens: int = Field(default=60, ge=1, le=10_000)
    """Longest one; of a shorter answer all but its last token at most."""
    seed: int = Field(default=0, ge=0, le=2**63 - 1)

    @model_validator(mode="after")
    def _order_bounds(self) -> Self:
        if self.min_tokens > self.max_tokens:
            raise ValueError("min_tokens is above max_tokens, so no row would be left.")
        return self


class ToolLoopSettings(Settings):
    """How conversations with tools are made."""

    file: ModelFileKind = "Q8_0"
    """Which file of the export has the prompt format."""
    harmless_share: float = Field(default=0.5, ge=0, le=0.9)
    """Share of the rows in which nothing harmful is asked: a model that learns refusals alone refuses tools."""
    max_tokens: int = Field(default=512, ge=32, le=1_048_576)
    """Tokens of a row, as the server counts them; longer ones are dropped, as training would cut their answers."""
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    """Of all that is drawn: where the request stands, tasks, tools and values."""


class PairSettings(ModelSettings):
    """How answers are ranked, and which pairs are worth learning from."""

    charter: str = Field(default=DEFAULT_CHARTER, min_length=1, max_length=2000)
    """``default``, or a path relative to the recipe; what a critic goes by."""
    expect: Literal["refusal", "answer"] = "refusal"
    """What a good answer to these prompts does."""
    ranking: Literal["rules", "critic"] = "rules"
    """``rules``: by the form of answers. ``critic``: by the share of a model's votes that an answer keeps its
    principle; rules decide between answers with as many, and whether the best one is good enough."""
    votes: int = Field(default=5, ge=1, le=99)
    """Votes of the critic on an answer, each with a seed of its own."""
    temperature: float = Field(default=0.7, ge=0, le=2)
    """Of votes."""
    margin: float = Field(default=0.25, gt=0, le=1)
    """Least difference of scores, which go from 0 to 1; prompts whose answers are closer are dropped."""
    against: Literal["samples", "first"] = "samples"
    """``samples``: the best against the worst of a model's own answers to a prompt. ``first``: a revision against
    the first answer. Such pairs are off-policy: a model tells them apart within a few steps, and learns little."""
    max_words: int = Field(default=300, ge=5, le=100_000)
    """Answers with more words are none that a model should learn."""
    most_repeated: float = Field(default=0.3, ge=0, le=1)
    """Largest share of an answer's four-word sequences that may be repetitions of earlier ones."""
    seed: int = Field(default=0, ge=0, le=2**63 - 1)

    @model_validator(mode="after")
    def _check_ranking(self) -> Self:
        if self.ranking == "critic" and self.expect == "answer":
            raise ValueError("a critic reads whether answers break a principle; rank answers to be given by rules")
        return self
