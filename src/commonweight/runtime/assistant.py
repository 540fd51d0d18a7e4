"""Opening an assistant: locates and loads its model, opens its guard, and closes everything in the end."""

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import replace

from commonweight.catalog.gguf import Gguf
from commonweight.catalog.integrity import check_content
from commonweight.catalog.model import ModelCard
from commonweight.catalog.reference import FileReference
from commonweight.catalog.resolve import resolve
from commonweight.catalog.starter import find_starter
from commonweight.engines.grammars import GrammarCompiler
from commonweight.engines.llama import LlamaEngine, plan_worker
from commonweight.engines.llama.model.load_check import check_loads
from commonweight.engines.llama.model.machine import count_cores
from commonweight.engines.remote import RemoteEngine, Vocabulary
from commonweight.engines.remote.tokenizer_probes import TOKENIZER_PROBES
from commonweight.engines.settings import RemoteSettings
from commonweight.guard import Guard
from commonweight.messages.request import MessageRequest
from commonweight.prompting import Renderer, Tokenizer
from commonweight.runtime.data import DataFolder
from commonweight.runtime.guard import find_encoder, identify_model, open_guard
from commonweight.runtime.settings import SELF, AssistantSettings
from commonweight.signing import Purpose, Signer
from commonweight.turn import Assistant, LoadFiles, TurnListener
from commonweight.turn.end_scorer import EndScorer
from commonweight.turn.self_judge import SelfJudge

log = logging.getLogger(__name__)

GREETING = "Hello! Who are you?"
"""What a remote server's chat template is compared with."""

JUDGE_PLACES = 1
"""Of the engine, for questions to the served model: no stream has to end before one about another is answered."""

OnProgress = Callable[[str, float], None]
"""Takes a model's id and the fraction of its weights that is loaded, from 0 to 1."""


def resolve_model(settings: AssistantSettings) -> AssistantSettings:
    """Locate the model; returns the settings with it as a local file, pulled if need be, and checked.

    To be called outside of an event loop, where the first Ctrl-C would not stop a download.
    """
    path = resolve(settings.model)
    with contextlib.suppress(FileNotFoundError):  # whatever opens it says that better
        check_content(path)
    if path != find_starter() and settings.remote is None:
        check_loads(path)
    return replace(settings, model=str(FileReference(path)))


@contextlib.asynccontextmanager
async def open_assistant(
    settings: AssistantSettings,
    *,
    data: DataFolder | None = None,
    guard: Guard | None = None,
    files: LoadFiles | None = None,
    listeners: Iterable[TurnListener] = (),
    report: Callable[[str], None] = log.info,
    on_progress: OnProgress = lambda _name, _fraction: None,
) -> AsyncIterator[Assistant]:
    """Open an assistant with its model loaded, until the block exits.

    Args:
        data: holds the key that signs reasoning; by default this user's.
        guard: takes the place of the one that the settings describe.
        report: gets lines for people on what was set up: the charter, the memory that was set aside.
    """
    with contextlib.closing(Gguf(resolve(settings.model))) as gguf:
        card = ModelCard.from_gguf(gguf)
        key = (data or DataFolder.from_options()).load_key()
        tokenizer = Tokenizer(gguf)
        renderer = Renderer(tokenizer, card.chat_template, card.generation.system)
        sizes: list[str] = []
        if guard is None and settings.guard is not None and settings.guard.mode != "off":
            find_encoder()  # its memory is taken before caches are sized by what is free
        engine = _make_engine(settings, gguf, card, renderer, key, sizes.append)
        try:
            # Before the slow load: a broken charter is known at once.
            if guard is None and settings.guard is not None:
                guard = open_guard(
                    settings.guard,
                    identify_model(gguf),
                    key,
                    report,
                    shows_states=settings.remote is None,
                    self_judge=SelfJudge(renderer, engine, sorted(tokenizer.end_ids)),
                    score_end=EndScorer(tokenizer, engine),
                )
            for line in sizes:
                report(line)
            await _start_engine(engine, card.id, settings.engine.context, report, on_progress)
            yield Assistant(
                card,
                tokenizer,
                engine,
                Signer(key, Purpose.THINKING_SIGNATURE),
                renderer=renderer,
                guard=guard,
                files=files,
                listeners=listeners,
                sampling=settings.sampling,
                max_output=settings.max_output,
            )
        finally:
            await engine.aclose()


def find_excesses(settings: AssistantSettings, card: ModelCard) -> Iterator[str]:
    """What the settings ask for and this model or machine does not have, and what happens instead."""
    context, threads, cores = settings.engine.context, settings.engine.threads, count_cores()
    if context is not None and context > card.trained_window:
        yield f"{card.id} was trained for {card.trained_window} tokens; --context is cut to that"
    if threads is not None and threads > cores:
        yield f"--threads {threads}: {cores} can run at once here, and those that wait hold up the others"


def make_remote_engine(
    settings: AssistantSettings, remote: RemoteSettings, gguf: Gguf, renderer: Renderer, key: bytes
) -> RemoteEngine:
    """Make a remote engine, not started yet. Of the model, only vocabulary and template are used."""
    vocabulary = make_vocabulary(Tokenizer(gguf), renderer)
    return RemoteEngine(remote, vocabulary, GrammarCompiler(gguf.vocab), key, context=settings.engine.context)


def make_vocabulary(tokenizer: Tokenizer, renderer: Renderer) -> Vocabulary:
    """Make the vocabulary that remote servers are compared with."""
    greeting = MessageRequest.model_validate(
        {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": GREETING}]}
    )
    return Vocabulary(
        texts=[(text, tokenizer.encode(text)) for text in TOKENIZER_PROBES],
        specials=tokenizer.special_tokens,
        pieces=lambda: [tokenizer.decode(token) for token in range(tokenizer.size)],
        bos=tokenizer.bos_id,
        ends=sorted(tokenizer.end_ids),
        greeting=(GREETING, renderer.render(greeting).token_ids),
    )


def _make_engine(
    settings: AssistantSettings,
    gguf: Gguf,
    card: ModelCard,
    renderer: Renderer,
    key: bytes,
    report: Callable[[str], None],
) -> LlamaEngine | RemoteEngine:
    if settings.remote is not None:
        return make_remote_engine(settings, settings.remote, gguf, renderer, key)
    for warning in find_excesses(settings, card):
        log.warning("%s", warning)
    asks_itself = settings.guard is not None and settings.guard.mode != "off" and settings.guard.judge_url == SELF
    reserved = JUDGE_PLACES if asks_itself else 0
    plan = plan_worker(card.path, card.trained_window, settings.engine, report, reserved=reserved)
    return LlamaEngine(plan)


async def _start_engine(
    engine: LlamaEngine | RemoteEngine,
    name: str,
    context: int | None,
    report: Callable[[str], None],
    on_progress: OnProgress,
) -> None:
    if isinstance(engine, RemoteEngine):
        await engine.start(report)
        if context is not None and context > engine.window:
            log.warning("the servers have %d tokens of context; --context is cut to that", engine.window)
        return
    on_progress(name, 0.0)
    await engine.start(lambda fraction: on_progress(name, fraction))
    on_progress(name, 1.0)
