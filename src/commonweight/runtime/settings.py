"""Settings of an assistant and of a server. Light: the command line reads it before anything is loaded."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from commonweight.engines.settings import EngineSettings, RemoteKind, RemoteSettings
from commonweight.runtime.errors import UserError

if TYPE_CHECKING:
    from commonweight.charter.principle import Mode
    from commonweight.guard.heads.bundle import Strictness

SELF = "self"
"""As a judge's URL: the served model."""


@dataclass(frozen=True, kw_only=True)
class GuardSettings:
    """Charter, compiled heads and judge of a guard. None: what ships with the package."""

    mode: "Mode" = "enforce"
    charter: Path | None = None
    bundle: Path | None = None
    strictness: "Strictness" = "standard"
    waived: Sequence[str] = ()
    """Ids of principles that are set aside for everyone."""
    judge_url: str | None = None
    judge_model: str | None = None
    judge_key: str | None = None
    judge_timeout: float = 10.0
    """Seconds."""


@dataclass(frozen=True, kw_only=True)
class AssistantSettings:
    """Model, engine and guard of an assistant."""

    model: str | None = None
    """A reference as ``catalog.resolve`` reads it. None: the starter."""
    engine: EngineSettings = EngineSettings()  # noqa: RUF009 - immutable
    remote: RemoteSettings | None = None
    """None: this machine computes. Otherwise only the model's vocabulary and template are needed here."""
    guard: GuardSettings | None = None
    """None: without a guard."""
    sampling: Literal["model", "api"] = "model"
    """Sampling of requests that set none: what is recommended for the model, or the API's defaults."""
    max_output: int | None = None
    """Most tokens that a request may ask for."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Network, keys and limits of a server."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0 takes a free one."""
    api_key: str | None = None
    aliases: Sequence[str] = ()
    tls_cert: Path | None = None
    """PEM, with its chain. None: plain HTTP."""
    tls_key: Path | None = None
    """None: it is in the same file."""
    cors_origins: Sequence[str] = ()
    drain: float = 30
    """Seconds that running requests have after a signal to stop."""
    keep_content: float | None = None
    """Days that requests and answers are kept. None: not at all."""
    file_quota: int = 10 * 10**9
    """Bytes of uploaded files for each tenant."""


def make_remote_settings(
    kind: RemoteKind | None, urls: Sequence[str], key: str | None, read_timeout: float
) -> RemoteSettings | None:
    """Settings of remote engines; None for the embedded one.

    Raises:
        UserError: the options do not go together, or a URL is malformed.
    """
    if kind is None:
        if urls:
            raise UserError("--engine-url also needs --engine: is it vllm or llama-server that answers there?")
        return None
    if not urls:
        raise UserError(f"--engine {kind} also needs --engine-url: where is it?")
    for url in urls:
        if not re.fullmatch(r"https?://[^/?#@\s]+(/[^?#\s]*)?", url):
            raise UserError(f"--engine-url {url}: write it like http://127.0.0.1:8000")
    if len({url.rstrip("/") for url in urls}) < len(urls):
        raise UserError("--engine-url: the same server is named twice")
    return RemoteSettings(kind=kind, urls=tuple(urls), key=key, read_timeout=read_timeout)
