"""From ``--model`` to an assistant that answers, with progress on the way."""

import contextlib
import logging
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from commonweight.catalog.gguf import Gguf
from commonweight.catalog.integrity import check_content
from commonweight.catalog.model import ModelCard
from commonweight.catalog.resolve import resolve
from commonweight.catalog.starter import starter
from commonweight.cli.data import Data
from commonweight.cli.guarding import SELF, Guarding, model_named, open_guard
from commonweight.cli.terminal import UserError
from commonweight.engines.contract import Engine
from commonweight.engines.grammars import GrammarCompiler
from commonweight.engines.llama import LlamaEngine, options
from commonweight.engines.llama.model.load_check import check_loads
from commonweight.engines.remote import RemoteEngine, UpstreamKind, Vocabulary
from commonweight.engines.remote.tokenizer_probes import TOKENIZER_PROBES
from commonweight.messages.request import MessageRequest
from commonweight.prompting import Renderer, Tokenizer
from commonweight.turn import Assistant
from commonweight.turn.signature import Signer, load_key

log = logging.getLogger(__name__)

GREETING = "Hello! Who are you?"
"""What a server's template is compared with."""


@dataclass(frozen=True)
class Elsewhere:
    """Servers that compute."""

    kind: UpstreamKind
    urls: Sequence[str]
    key: str | None = None
    silence: float = 300.0
    """Seconds that one may say nothing."""


def elsewhere(
    engine: Literal["llama", "vllm", "llama-server"],
    urls: Sequence[str],
    key: str | None,
    silence: float = Elsewhere.silence,
) -> Elsewhere | None:
    """What the options on the engine mean.

    Raises:
        UserError: they do not go together.
    """
    if engine == "llama":
        if urls:
            raise UserError("--engine-url also needs --engine: is it vllm or llama-server that answers there?")
        return None
    if not urls:
        raise UserError(f"--engine {engine} also needs --engine-url: where is it?")
    for url in urls:
        if not re.fullmatch(r"https?://[^/?#@\s]+(/[^?#\s]*)?", url):
            raise UserError(f"--engine-url {url}: write it like http://127.0.0.1:8000")
    if len({url.rstrip("/") for url in urls}) < len(urls):
        raise UserError("--engine-url: the same server is named twice")
    return Elsewhere(engine, urls, key, silence)


@dataclass(frozen=True)
class Setup:
    """Which model, and how large: tokens, and bytes. None means what suits the model and the machine."""

    model: str | None
    context: int | None = None
    parallel: int = 8
    threads: int | None = None
    kv_memory: int | None = None
    kv_type: Literal["f16", "q8_0"] = "f16"
    cache_ram: int | None = None
    cache_disk: int | None = None
    speculation: bool = True
    max_output: int | None = None
    guarding: Guarding | None = None
    """None: without a guard."""
    elsewhere: Elsewhere | None = None
    """None: this machine computes. Otherwise only the model's vocabulary and template are needed here."""

    def located(self) -> "Setup":
        """The same with the model as a local file, pulled if need be.

        To be called outside of an event loop, where the first Ctrl-C would not stop a download.
        """
        path = resolve(self.model)
        with contextlib.suppress(FileNotFoundError):  # which whoever opens it says better
            check_content(path)
        if path != starter() and self.elsewhere is None:
            check_loads(path)
        return replace(self, model=str(path))


@contextlib.asynccontextmanager
async def open_assistant(
    setup: Setup, console: Console, tell: Callable[[str], None] = log.info, data: Data | None = None
) -> AsyncIterator[Assistant]:
    """Locate the model, load it with its progress on ``console``, and free everything at the end.

    ``tell`` gets a line on the memory that was set aside. ``data`` has the key that signs reasoning;
    this user's by default.
    """
    with contextlib.closing(Gguf(resolve(setup.model))) as gguf:
        card = ModelCard.of(gguf)
        key = load_key((data or Data.at(None, None)).folder)
        tokenizer = Tokenizer(gguf)
        # Before the model loads: to learn minutes later that the charter is broken would be a poor joke.
        guard = (
            open_guard(setup.guarding, model_named(gguf), key, tell, shows_states=setup.elsewhere is None)
            if setup.guarding
            else None
        )
        async with contextlib.AsyncExitStack() as stack:
            if setup.elsewhere is None:
                engine: Engine = await stack.enter_async_context(_embedded(setup, card, console, tell))
            else:
                engine = await stack.enter_async_context(open_remote(setup, setup.elsewhere, gguf, key, tell))
            assistant = Assistant(card, tokenizer, engine, Signer(key), setup.max_output)
            assistant.guard = guard
            if guard is not None and setup.guarding and setup.guarding.judge_url == SELF:
                guard.judge = assistant.judge
            yield assistant


@contextlib.asynccontextmanager
async def _embedded(
    setup: Setup, card: ModelCard, console: Console, tell: Callable[[str], None]
) -> AsyncIterator[LlamaEngine]:
    if setup.context is not None and setup.context > card.trained_window:
        log.warning("%s was trained for %d tokens; --context is cut to that", card.id, card.trained_window)
    engine = LlamaEngine(
        options(
            card.path,
            card.trained_window,
            context=setup.context,
            sequences=setup.parallel,
            threads=setup.threads,
            kv_memory=setup.kv_memory,
            kv_type=setup.kv_type,
            cache_ram=setup.cache_ram,
            cache_disk=setup.cache_disk,
            speculation=setup.speculation,
            tell=tell,
        )
    )
    try:
        await _start(engine, card.id, console)
        yield engine
    finally:
        await engine.aclose()


@contextlib.asynccontextmanager
async def open_remote(
    setup: Setup, servers: Elsewhere, gguf: Gguf, key: bytes, tell: Callable[[str], None]
) -> AsyncIterator[RemoteEngine]:
    """An engine elsewhere, once its servers are known to be what they should be; ``tell`` gets a line on each.

    Raises:
        UnfitError: they are not.
    """
    engine = RemoteEngine(
        servers.kind,
        servers.urls,
        vocabulary_of(Tokenizer(gguf), ModelCard.of(gguf)),
        GrammarCompiler(gguf.vocab),
        key,
        server_key=servers.key,
        read_timeout=servers.silence,
        context=setup.context,
    )
    try:
        await engine.start(tell)
        yield engine
    finally:
        await engine.aclose()


def vocabulary_of(tokenizer: Tokenizer, card: ModelCard) -> Vocabulary:
    """What servers elsewhere are compared with."""
    greeting = MessageRequest.model_validate(
        {"model": card.id, "max_tokens": 1, "messages": [{"role": "user", "content": GREETING}]}
    )
    return Vocabulary(
        texts=[(text, tokenizer.encode(text)) for text in TOKENIZER_PROBES],
        specials=tokenizer.special_tokens,
        pieces=lambda: [tokenizer.decode(token) for token in range(tokenizer.size)],
        bos=tokenizer.bos_id,
        ends=sorted(tokenizer.end_ids),
        greeting=(GREETING, Renderer(tokenizer, card.chat_template).render(greeting).token_ids),
    )


async def _start(engine: LlamaEngine, name: str, console: Console) -> None:
    if not console.is_terminal:
        console.print(f"Loading {name}", soft_wrap=True)
    columns = TextColumn("Loading {task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=1.0)
        await engine.start(lambda fraction: progress.update(task, completed=fraction))
