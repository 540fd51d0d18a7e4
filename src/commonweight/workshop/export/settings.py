"""Settings of the import and export stages, and the error that they raise. Imports nothing heavy."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from commonweight.lineage.errors import WorkshopError
from commonweight.workshop.settings import Settings, Several

Quantisation = Literal["Q8_0", "Q4_K_M"]


class ExportError(WorkshopError):
    """A model cannot be imported or exported, or its export is not like it; the message is one sentence."""


class ImportSettings(Settings):
    """A base model: where its GGUF file is, and under which terms."""

    location: str = Field(alias="from", min_length=1, max_length=2000)
    """``starter``, or a GGUF file, relative to the recipe."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Digest that the file must have; of the starter it is known."""
    model_id: str = Field(min_length=1, max_length=200)
    """The model's id at its publisher: ``organisation/name``."""
    licence: str = Field(min_length=1, max_length=100)
    """SPDX identifier or ``LicenseRef-`` name of its weights."""


class KlBounds(Settings):
    """How far an exported file's next-token distributions may be from the model's, in nats."""

    mean: float = Field(gt=0, le=10)
    p99: float = Field(gt=0, le=100)
    """Of the 99th percentile over positions."""


class ParitySettings(Settings):
    """What an export must keep of the model; anything else stops the build.

    All texts must give the same tokens and all conversations the same prompt, whatever is set here.
    """

    tokens: int = Field(default=512, ge=32, le=1_000_000)
    """Positions of the text that distributions are compared at."""
    f16: KlBounds = KlBounds(mean=0.001, p99=0.01)
    q8_0: KlBounds = KlBounds(mean=0.01, p99=0.1)
    q4_k_m: KlBounds = KlBounds(mean=0.25, p99=2.0)
    perplexity_ratio: float = Field(default=1.25, gt=1, le=10)
    """Most that an export's perplexity may be of the model's."""


class ExportSettings(Settings):
    """Which GGUF files are written of a model."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")]
    """The model's name, as files and metadata have it."""
    licence: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]{0,99}$")
    """SPDX identifier or ``LicenseRef-`` name that the files state; None: they state none."""
    base_model: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?$"
    )
    """The hub's id of the model that this one was made from, as the files state it; None: of none."""
    quantisations: Several[Quantisation] = ("Q8_0", "Q4_K_M")
    """Files beside the F16 one, which is always written."""
    parity: ParitySettings = ParitySettings()

    def make_metadata(self) -> dict[str, str]:
        """What the files state of licence and origin, by the keys of the GGUF format."""
        metadata = {} if self.licence is None else {"general.license": self.licence}
        if self.base_model is not None:
            organisation, _, name = self.base_model.rpartition("/")
            metadata["general.base_model.0.name"] = name
            if organisation:
                metadata["general.base_model.0.organization"] = organisation
                metadata["general.base_model.0.repo_url"] = f"https://huggingface.co/{self.base_model}"
        return metadata

    @field_validator("quantisations")
    @classmethod
    def _check_quantisations(cls, kinds: tuple[Quantisation, ...]) -> tuple[Quantisation, ...]:
        if len(set(kinds)) < len(kinds):
            raise ValueError("a quantisation is named twice")
        return kinds
