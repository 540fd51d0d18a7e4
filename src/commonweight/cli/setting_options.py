"""Options of settings classes: one for each field, in the order of help. Defaults are those of the fields."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from commonweight.cli.options import DATA_PANEL, parse_size
from commonweight.engines.settings import RemoteSettings
from commonweight.runtime.settings import make_remote_settings

MEMORY_PANEL = "Memory and speed"
ENGINE_PANEL = "Servers that compute"
GUARD_PANEL = "Guard"
NETWORK_PANEL = "Network"
OPERATION_PANEL = "Operation"


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """Options that choose between the embedded engine and remote ones."""

    kind: Literal["llama", "vllm", "llama-server"] = "llama"
    urls: tuple[str, ...] = ()
    key: str | None = None
    read_timeout: float = 300

    def make_settings(self) -> RemoteSettings | None:
        """Settings of remote engines; None for the embedded one."""
        kind = None if self.kind == "llama" else self.kind
        return make_remote_settings(kind, self.urls, self.key, self.read_timeout)


ENGINE_OPTIONS: dict[str, Any] = {
    "context": Annotated[
        int | None,
        typer.Option(
            "--context",
            min=64,
            metavar="TOKENS",
            help="Room for a prompt and its answer together. Default: the model's own, at most 32768.",
            show_default=False,
            rich_help_panel=MEMORY_PANEL,
        ),
    ],
    "parallel": Annotated[
        int,
        typer.Option(
            "--parallel",
            min=1,
            max=255,
            metavar="N",
            help="How many requests run at the same time.",
            rich_help_panel=MEMORY_PANEL,
        ),
    ],
    "threads": Annotated[
        int | None,
        typer.Option(
            "--threads",
            min=1,
            metavar="N",
            help="CPU threads that compute. Default: one for each physical core.",
            show_default=False,
            rich_help_panel=MEMORY_PANEL,
        ),
    ],
    "kv_memory": Annotated[
        int | None,
        typer.Option(
            "--kv-memory",
            parser=parse_size,
            metavar="SIZE",
            help="Memory for the tokens of running requests, such as 4GiB. Default: for a full context each, "
            "as far as free memory goes.",
            show_default=False,
            rich_help_panel=MEMORY_PANEL,
        ),
    ],
    "kv_type": Annotated[
        Literal["f16", "q8_0"],
        typer.Option(
            "--kv-type",
            help="q8_0 takes half the memory a token, but reads long prompts several times slower.",
            rich_help_panel=MEMORY_PANEL,
        ),
    ],
    "cache_ram": Annotated[
        int | None,
        typer.Option(
            "--cache-ram",
            parser=parse_size,
            metavar="SIZE",
            help="Memory that keeps prompts for later requests; 0 keeps none, on disk neither. Default: a "
            "quarter of what is free beside the model, at most 8GiB.",
            show_default=False,
            rich_help_panel=MEMORY_PANEL,
        ),
    ],
    "cache_disk": Annotated[
        int | None,
        typer.Option(
            "--cache-disk",
            parser=parse_size,
            metavar="SIZE",
            help="Disk space that keeps prompts across restarts; 0 writes nothing. Default: a tenth of what is "
            "free, at most 10GiB.",
            show_default=False,
            rich_help_panel=MEMORY_PANEL,
        ),
    ],
    "speculation": Annotated[
        bool,
        typer.Option(
            "--speculation/--no-speculation",
            metavar="",
            help="Guess tokens that repeat the prompt, and check several at once.",
            rich_help_panel=MEMORY_PANEL,
        ),
    ],
}

REMOTE_OPTIONS: dict[str, Any] = {
    "kind": Annotated[
        Literal["llama", "vllm", "llama-server"],
        typer.Option(
            "--engine",
            help="What computes: llama.cpp in this server's care, or servers at --engine-url.",
            rich_help_panel=ENGINE_PANEL,
        ),
    ],
    "urls": Annotated[
        list[str] | None,
        typer.Option(
            "--engine-url",
            metavar="URL",
            help="Where such a server is, like `http://gpu1:8000`; may repeat, for several with the same model. "
            "Of --model, the vocabulary and the chat template are used.",
            show_default=False,
            rich_help_panel=ENGINE_PANEL,
        ),
    ],
    "key": Annotated[
        str | None,
        typer.Option(
            "--engine-key",
            envvar="COMMONWEIGHT_ENGINE_KEY",
            metavar="KEY",
            help="Key that these servers want.",
            show_default=False,
            rich_help_panel=ENGINE_PANEL,
        ),
    ],
    "read_timeout": Annotated[
        float,
        typer.Option(
            "--engine-timeout",
            min=1,
            metavar="SECONDS",
            help="How long such a server may say nothing, while a request queues or a prompt is read, too.",
            rich_help_panel=ENGINE_PANEL,
        ),
    ],
}

GUARD_OPTIONS: dict[str, Any] = {
    "mode": Annotated[
        Literal["enforce", "shadow", "off"],
        typer.Option(
            "--guard",
            help="Keep exchanges to the charter, only record what would have been refused, or neither.",
            rich_help_panel=GUARD_PANEL,
        ),
    ],
    "strictness": Annotated[
        Literal["low", "standard", "high"],
        typer.Option(
            "--strictness",
            help="How much is refused: so that 0.2, 1 or 3 % of ordinary prompts would be, as calibrated.",
            rich_help_panel=GUARD_PANEL,
        ),
    ],
    "charter": Annotated[
        Path | None,
        typer.Option(
            "--charter",
            metavar="FILE",
            help="The principles. Default: the charter that ships with Commonweight.",
            dir_okay=False,
            show_default=False,
            rich_help_panel=GUARD_PANEL,
        ),
    ],
    "bundle": Annotated[
        Path | None,
        typer.Option(
            "--guard-bundle",
            metavar="FILE",
            help="What `charter compile` made of them. Default: the package's own, and the charter's words.",
            dir_okay=False,
            show_default=False,
            rich_help_panel=GUARD_PANEL,
        ),
    ],
    "waived": Annotated[
        list[str] | None,
        typer.Option(
            "--waive",
            metavar="PRINCIPLE",
            help="Set a principle aside for everyone, if the charter lets providers do that; may repeat.",
            show_default=False,
            rich_help_panel=GUARD_PANEL,
        ),
    ],
    "judge_url": Annotated[
        str | None,
        typer.Option(
            "--judge",
            metavar="URL",
            help="Whom to ask where heads are in doubt: `.../v1/messages`, `.../v1/chat/completions`, or `self`, "
            "the served model.",
            show_default=False,
            rich_help_panel=GUARD_PANEL,
        ),
    ],
    "judge_model": Annotated[
        str | None,
        typer.Option(
            "--judge-model",
            metavar="NAME",
            help="The model to ask for there.",
            show_default=False,
            rich_help_panel=GUARD_PANEL,
        ),
    ],
    "judge_key": Annotated[
        str | None,
        typer.Option(
            "--judge-key",
            envvar="COMMONWEIGHT_JUDGE_KEY",
            metavar="KEY",
            help="Key that the judge wants.",
            show_default=False,
            rich_help_panel=GUARD_PANEL,
        ),
    ],
    "judge_timeout": Annotated[
        float,
        typer.Option(
            "--judge-timeout",
            min=0.1,
            metavar="SECONDS",
            help="How long a judge may take; then the charter says what holds.",
            rich_help_panel=GUARD_PANEL,
        ),
    ],
}

SERVER_OPTIONS: dict[str, Any] = {
    "host": Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.")],
    "port": Annotated[
        int,
        typer.Option("--port", min=0, max=65535, metavar="PORT", help="Port to listen on; 0 takes a free one."),
    ],
    "api_key": Annotated[
        str | None,
        typer.Option(
            "--api-key",
            envvar="COMMONWEIGHT_API_KEY",
            metavar="KEY",
            help="One key for everything, beside those of `commonweight keys`.",
            show_default=False,
        ),
    ],
    "aliases": Annotated[
        list[str] | None,
        typer.Option(
            "--alias",
            metavar="NAME",
            help="A further name to list the model under; may repeat. Requests may use any name.",
            show_default=False,
        ),
    ],
    "tls_cert": Annotated[
        Path | None,
        typer.Option(
            "--tls-cert",
            metavar="FILE",
            help="Serve HTTPS with this certificate (PEM, with its chain).",
            show_default=False,
            rich_help_panel=NETWORK_PANEL,
        ),
    ],
    "tls_key": Annotated[
        Path | None,
        typer.Option(
            "--tls-key",
            metavar="FILE",
            help="Its key, unless that is in the same file.",
            show_default=False,
            rich_help_panel=NETWORK_PANEL,
        ),
    ],
    "cors_origins": Annotated[
        list[str] | None,
        typer.Option(
            "--cors-origin",
            metavar="ORIGIN",
            help="Let web pages of this origin use the server, such as `https://example.com`; may repeat. "
            "Default: none.",
            show_default=False,
            rich_help_panel=NETWORK_PANEL,
        ),
    ],
    "drain": Annotated[
        float,
        typer.Option(
            "--drain",
            min=0,
            metavar="SECONDS",
            help="How long running requests may go on after a signal to stop.",
            rich_help_panel=OPERATION_PANEL,
        ),
    ],
    "keep_content": Annotated[
        float | None,
        typer.Option(
            "--keep-content",
            min=0,
            max=36500,
            metavar="DAYS",
            help="Keep what is asked and answered, in the database, for so long. Default: none of it.",
            show_default=False,
            rich_help_panel=DATA_PANEL,
        ),
    ],
    "file_quota": Annotated[
        int,
        typer.Option(
            "--file-quota",
            parser=parse_size,
            metavar="SIZE",
            help="Disk space for the uploaded files of each tenant. Default: 10GB.",
            show_default=False,
            rich_help_panel=DATA_PANEL,
        ),
    ],
}
