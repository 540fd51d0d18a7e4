"""Options that several commands have. Light, because every command's help needs them."""

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

DATA_PANEL = "Data"
MEMORY_PANEL = "Memory and speed"
ENGINE_PANEL = "Servers that compute"
GUARD_PANEL = "Guard"

DataFolder = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="FOLDER",
        help="Folder for what the server keeps. Default: this user's data folder.",
        file_okay=False,
        show_default=False,
        rich_help_panel=DATA_PANEL,
    ),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        envvar="COMMONWEIGHT_DATABASE",
        help="Such as `postgresql+asyncpg://user@host/name`. Default: a SQLite file in the data folder.",
        show_default=False,
        rich_help_panel=DATA_PANEL,
    ),
]

_POWERS = {unit: power for power, unit in enumerate(("", "K", "M", "G", "T"))}


def size(text: str) -> int:
    """Bytes, from "4GiB", "1.5 GB" or plain "1048576"; letters may be small."""
    if match := re.fullmatch(r"(\d+(?:\.\d+)?) ?(?:([KMGT])(I?)B|B?)", text.strip().upper(), re.ASCII):
        number, unit, binary = match.groups(default="")
        return int(float(number) * (1024 if binary else 1000) ** _POWERS[unit])
    raise typer.BadParameter(f"{text!r} is no size; write for example 4GiB, 500MB or plain bytes.")


WHICH_MODEL = "`starter` (default), a GGUF file or its folder, `hf:org/repo[:QUANT]` or `hf:org/repo/file.gguf`."
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help=WHICH_MODEL,
        show_default=False,
    ),
]

Context = Annotated[
    int | None,
    typer.Option(
        min=64,
        metavar="TOKENS",
        help="Room for a prompt and its answer together. Default: the model's own, at most 32768.",
        show_default=False,
        rich_help_panel=MEMORY_PANEL,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="CPU threads that compute. Default: one for each physical core.",
        show_default=False,
        rich_help_panel=MEMORY_PANEL,
    ),
]
Parallel = Annotated[
    int,
    typer.Option(
        min=1,
        max=255,
        metavar="N",
        help="How many requests run at the same time.",
        rich_help_panel=MEMORY_PANEL,
    ),
]
KvMemory = Annotated[
    int | None,
    typer.Option(
        parser=size,
        metavar="SIZE",
        help="Memory for the tokens of running requests, such as 4GiB. Default: for a full context each, "
        "as far as free memory goes.",
        show_default=False,
        rich_help_panel=MEMORY_PANEL,
    ),
]
KvType = Annotated[
    Literal["f16", "q8_0"],
    typer.Option(
        help="q8_0 takes half the memory a token, but reads long prompts several times slower.",
        rich_help_panel=MEMORY_PANEL,
    ),
]
CacheRam = Annotated[
    int | None,
    typer.Option(
        parser=size,
        metavar="SIZE",
        help="Memory that keeps prompts for later requests; 0 keeps none, on disk neither. Default: a quarter of "
        "what is free beside the model, at most 8GiB.",
        show_default=False,
        rich_help_panel=MEMORY_PANEL,
    ),
]
CacheDisk = Annotated[
    int | None,
    typer.Option(
        parser=size,
        metavar="SIZE",
        help="Disk space that keeps prompts across restarts; 0 writes nothing. Default: a tenth of what is free, "
        "at most 10GiB.",
        show_default=False,
        rich_help_panel=MEMORY_PANEL,
    ),
]
Speculation = Annotated[
    bool,
    typer.Option(
        "--speculation/--no-speculation",
        metavar="",
        help="Guess tokens that repeat the prompt, and check several at once.",
        rich_help_panel=MEMORY_PANEL,
    ),
]

Engine = Annotated[
    Literal["llama", "vllm", "llama-server"],
    typer.Option(
        help="What computes: llama.cpp in this server's care, or servers at --engine-url.",
        rich_help_panel=ENGINE_PANEL,
    ),
]
EngineUrl = Annotated[
    list[str] | None,
    typer.Option(
        metavar="URL",
        help="Where such a server is, like `http://gpu1:8000`; may repeat, for several with the same model. "
        "Of --model, the vocabulary and the chat template are used.",
        show_default=False,
        rich_help_panel=ENGINE_PANEL,
    ),
]
EngineKey = Annotated[
    str | None,
    typer.Option(
        envvar="COMMONWEIGHT_ENGINE_KEY",
        metavar="KEY",
        help="Key that these servers want.",
        show_default=False,
        rich_help_panel=ENGINE_PANEL,
    ),
]
EngineTimeout = Annotated[
    float,
    typer.Option(
        min=1,
        metavar="SECONDS",
        help="How long such a server may say nothing, while a request queues or a prompt is read, too.",
        rich_help_panel=ENGINE_PANEL,
    ),
]

GuardMode = Annotated[
    Literal["enforce", "shadow", "off"],
    typer.Option(
        "--guard",
        help="Keep exchanges to the charter, only record what would have been refused, or neither.",
        rich_help_panel=GUARD_PANEL,
    ),
]
CharterFile = Annotated[
    Path | None,
    typer.Option(
        "--charter",
        metavar="FILE",
        help="The principles. Default: the charter that ships with Commonweight.",
        dir_okay=False,
        show_default=False,
        rich_help_panel=GUARD_PANEL,
    ),
]
GuardBundle = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="What `charter compile` made of them. Default: the package's own, and the charter's words.",
        dir_okay=False,
        show_default=False,
        rich_help_panel=GUARD_PANEL,
    ),
]
Waive = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PRINCIPLE",
        help="Set a principle aside for everyone, if the charter lets providers do that; may repeat.",
        show_default=False,
        rich_help_panel=GUARD_PANEL,
    ),
]
JudgeUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Whom to ask where heads are in doubt: `.../v1/messages`, `.../v1/chat/completions`, or `self`, "
        "the served model.",
        show_default=False,
        rich_help_panel=GUARD_PANEL,
    ),
]
JudgeModel = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="The model to ask for there.", show_default=False, rich_help_panel=GUARD_PANEL
    ),
]
JudgeKey = Annotated[
    str | None,
    typer.Option(
        envvar="COMMONWEIGHT_JUDGE_KEY",
        metavar="KEY",
        help="Key that the judge wants.",
        show_default=False,
        rich_help_panel=GUARD_PANEL,
    ),
]
JudgeTimeout = Annotated[
    float,
    typer.Option(
        min=0.1,
        metavar="SECONDS",
        help="How long a judge may take; then the charter says what holds.",
        rich_help_panel=GUARD_PANEL,
    ),
]
