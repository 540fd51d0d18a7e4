"""From ``--model`` to an assistant that answers, with progress on the way."""

import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from commonweight.catalog.gguf import Gguf
from commonweight.catalog.locate import check_content, locate, starter
from commonweight.catalog.model import ModelCard
from commonweight.cli.data import Data
from commonweight.cli.guarding import SELF, Guarding, model_named, open_guard
from commonweight.engines.llama import LlamaEngine, options
from commonweight.engines.llama.trial import try_model
from commonweight.prompting import Tokenizer
from commonweight.turn import Assistant
from commonweight.turn.signature import Signer, load_key

log = logging.getLogger(__name__)


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

    def located(self) -> "Setup":
        """The same with the model as a local file, pulled if need be.

        To be called outside of an event loop, where the first Ctrl-C would not stop a download.
        """
        path = locate(self.model)
        with contextlib.suppress(FileNotFoundError):  # which whoever opens it says better
            check_content(path)
        if path != starter():
            try_model(path)
        return replace(self, model=str(path))


@contextlib.asynccontextmanager
async def open_assistant(
    setup: Setup, console: Console, tell: Callable[[str], None] = log.info, data: Data | None = None
) -> AsyncIterator[Assistant]:
    """Locate the model, load it with its progress on ``console``, and free everything at the end.

    ``tell`` gets a line on the memory that was set aside. ``data`` has the key that signs reasoning;
    this user's by default.
    """
    with contextlib.closing(Gguf(locate(setup.model))) as gguf:
        card = ModelCard.of(gguf)
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
        key = load_key((data or Data.at(None, None)).folder)
        # Before the model loads: to learn minutes later that the charter is broken would be a poor joke.
        guard = open_guard(setup.guarding, model_named(gguf), key, tell) if setup.guarding else None
        try:
            await _start(engine, card.id, console)
            assistant = Assistant(card, Tokenizer(gguf), engine, Signer(key), setup.max_output)
            assistant.guard = guard
            if guard is not None and setup.guarding and setup.guarding.judge_url == SELF:
                guard.judge = assistant.judge
            yield assistant
        finally:
            await engine.close()


async def _start(engine: LlamaEngine, name: str, console: Console) -> None:
    if not console.is_terminal:
        console.print(f"Loading {name}", soft_wrap=True)
    columns = TextColumn("Loading {task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=1.0)
        await engine.start(lambda fraction: progress.update(task, completed=fraction))
