"""Settings of engines, as an operator chooses them; passed unchanged from the command line to what uses them."""

from typing import Literal

import msgspec

KvType = Literal["f16", "q8_0"]


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Options that an operator chooses. None: what suits the model and the machine.

    A new option is a field here, an entry in ``cli.setting_options`` and a line where it is used.
    """

    context: int | None = None
    """Tokens of a prompt and its answer together."""
    parallel: int = 8
    """Sequences that run at the same time."""
    threads: int | None = None
    kv_memory: int | None = None
    """Bytes for the tokens of running sequences."""
    kv_type: KvType = "f16"
    cache_ram: int | None = None
    """Bytes for prefixes that no running sequence uses; 0 keeps none, on disk neither."""
    cache_disk: int | None = None
    """Bytes for prefixes across restarts; 0 writes nothing."""
    speculation: bool = True
    """Draft tokens by prompt lookup."""


RemoteKind = Literal["vllm", "llama-server"]


class RemoteSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Servers that compute in place of the embedded engine, all with the same model."""

    kind: RemoteKind
    urls: tuple[str, ...]
    key: str | None = None
    read_timeout: float = 300.0
    """Seconds that a server may be silent."""
