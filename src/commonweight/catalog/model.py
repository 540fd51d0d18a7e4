"""Model card: the metadata of one GGUF file."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from commonweight.catalog.generation import API_DEFAULTS, GenerationDefaults, find_generation_defaults
from commonweight.catalog.gguf import Gguf
from commonweight.catalog.gguf_names import make_display_name
from commonweight.catalog.header import UnreadableModelError


@dataclass(frozen=True)
class ModelCard:
    """Name, architecture, licence, sizes and chat template of a model, from its file's metadata."""

    id: str
    """The name it is served under: the file's, without its ending."""
    path: Path
    name: str
    """Its name for people."""
    architecture: str
    licence: str | None
    trained_window: int
    """Tokens of context that the model was trained for."""
    chat_template: str | None
    parameters: int
    size_bytes: int
    created_at: datetime
    generation: GenerationDefaults = API_DEFAULTS

    @classmethod
    def from_gguf(cls, gguf: Gguf) -> "ModelCard":
        """Read the card of an open file."""
        metadata = gguf.metadata
        architecture = metadata.get("general.architecture", "")
        window = metadata.get(f"{architecture}.context_length", "")
        if not window.isdecimal():
            raise UnreadableModelError(f"{gguf.path} does not say how long its context is")
        return cls(
            id=gguf.path.stem,
            path=gguf.path,
            name=make_display_name(gguf.path.stem, metadata.get("general.name")),
            architecture=architecture,
            licence=metadata.get("general.license"),
            trained_window=int(window),
            chat_template=metadata.get("tokenizer.chat_template"),
            parameters=gguf.parameters,
            size_bytes=gguf.size_bytes,
            created_at=datetime.fromtimestamp(int(gguf.path.stat().st_mtime), UTC),
            generation=find_generation_defaults(gguf.path, metadata),
        )
