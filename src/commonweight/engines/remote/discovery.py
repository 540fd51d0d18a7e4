"""Upstream discovery: its API, features and window, and whether its tokenizer and template match ours."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from commonweight.engines.contract import EngineError, Job, Priority, Sampling
from commonweight.engines.grammars import GrammarCompiler
from commonweight.engines.remote.backend import Backend, RequestRejectedError, UpstreamError
from commonweight.engines.remote.llama_server import LlamaServerCompletion
from commonweight.engines.remote.upstream import Upstream
from commonweight.engines.remote.vllm import VllmCompletions, VllmGenerate
from commonweight.engines.settings import RemoteKind

_UNLIKELY_GRAMMAR = 'start: "zq7"'
"""Grammar of a text that no model generates unless constrained."""


class UpstreamMismatchError(EngineError):
    """An upstream cannot be used; the message says why, and is for the operator."""


@dataclass(frozen=True)
class Vocabulary:
    """Properties of our tokenizer and template that are compared with an upstream's."""

    texts: Sequence[tuple[str, list[int]]]
    """Texts that distinguish tokenizers, and their tokens."""
    specials: Mapping[str, int]
    """Special tokens by their text."""
    pieces: Callable[[], Sequence[bytes]]
    """Bytes of each token. Takes a while to compute."""
    bos: int | None
    """Token that prompts may begin with."""
    ends: Sequence[int]
    """Tokens that end an answer."""
    greeting: tuple[str, list[int]]
    """A user message, and the prompt that the model's template makes of it."""


@dataclass(frozen=True)
class UpstreamInfo:
    """Result of discovery: how to use an upstream."""

    backend: Backend
    window: int
    text: str
    """Description for the operator."""


async def discover(
    kind: RemoteKind, upstream: Upstream, vocabulary: Vocabulary, grammars: GrammarCompiler
) -> UpstreamInfo:
    """Query an upstream for everything that is needed before it gets jobs.

    Raises:
        UpstreamError: it cannot be reached, or failed.
        UpstreamMismatchError: it is no such server, or has another model.
    """
    return await (_discover_vllm if kind == "vllm" else _discover_llama_server)(upstream, vocabulary, grammars)


# vLLM


async def _discover_vllm(upstream: Upstream, vocabulary: Vocabulary, grammars: GrammarCompiler) -> UpstreamInfo:
    try:
        listed = [model for model in (await upstream.get("/v1/models"))["data"] if model.get("parent") is None]
        name, window = str(listed[0]["id"]), listed[0].get("max_model_len")
    except RequestRejectedError as error:
        raise UpstreamMismatchError(
            f"{upstream.url} is no vLLM, or wants another --engine-key: /v1/models gives {error}"
        ) from error
    except (LookupError, TypeError, AttributeError) as error:
        raise UpstreamMismatchError(f"{upstream.url} is no vLLM: /v1/models lists no model") from error
    if not isinstance(window, int):
        raise UpstreamMismatchError(
            f"{upstream.url} does not say how long the context of {name} is (max_model_len)"
        )
    checked = await _compare(upstream, vocabulary, _VllmTokens(upstream, name))
    backend: VllmGenerate | VllmCompletions = VllmGenerate(name)
    try:
        await _generate_tokens(upstream, backend, vocabulary)
    except RequestRejectedError:
        backend = VllmCompletions(name)
        await _require_tokens(upstream, backend, vocabulary)
    backend = replace(backend, supports_grammars=True)
    if not await _supports_grammars(upstream, backend, vocabulary, grammars):
        backend = replace(backend, supports_grammars=False)
    backend = replace(backend, supports_priorities=True)
    try:
        await _generate_tokens(upstream, backend, vocabulary, priority="batch")
        priorities = "priorities passed on"
    except UpstreamError:
        backend = replace(backend, supports_priorities=False)
        priorities = "no priorities"
    facts = (name, f"{window} tokens", f"asked at {backend.path}", _on_grammars(backend), priorities, checked)
    return UpstreamInfo(backend, window, f"vLLM at {upstream.url}: {', '.join(facts)}")


class _VllmTokens:
    """Tokenizes texts and conversations with vLLM's API."""

    def __init__(self, upstream: Upstream, model: str) -> None:
        self._upstream = upstream
        self._model = model

    async def of(self, text: str) -> list[int]:
        body = {"model": self._model, "prompt": text, "add_special_tokens": False}
        return _ids(await self._upstream.post("/tokenize", body))

    async def of_greeting(self, text: str) -> list[int]:
        messages = [{"role": "user", "content": text}]
        body = {"model": self._model, "messages": messages, "add_generation_prompt": False}
        return _ids(await self._upstream.post("/tokenize", body))


# llama-server


async def _discover_llama_server(
    upstream: Upstream, vocabulary: Vocabulary, grammars: GrammarCompiler
) -> UpstreamInfo:
    try:
        properties = await upstream.get("/props")
        window = int(properties["default_generation_settings"]["n_ctx"])
        name = str(properties.get("model_alias") or properties.get("model_path"))
    except RequestRejectedError as error:
        raise UpstreamMismatchError(
            f"{upstream.url} is no llama-server, or wants another --engine-key: /props gives {error}"
        ) from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UpstreamMismatchError(f"{upstream.url} is no llama-server: /props does not tell n_ctx") from error
    checked = await _compare(upstream, vocabulary, _LlamaServerTokens(upstream))
    backend = LlamaServerCompletion(await asyncio.to_thread(vocabulary.pieces))
    await _require_tokens(upstream, backend, vocabulary)
    facts = (name, f"{window} tokens a slot", f"asked at {backend.path}", _on_grammars(backend), checked)
    return UpstreamInfo(backend, window, f"llama-server at {upstream.url}: {', '.join(facts)}")


class _LlamaServerTokens:
    """Tokenizes texts and conversations with llama-server's API."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def of(self, text: str) -> list[int]:
        return _ids(await self._upstream.post("/tokenize", {"content": text, "parse_special": True}))

    async def of_greeting(self, text: str) -> list[int]:
        messages = [{"role": "user", "content": text}]
        body = {"messages": messages, "add_generation_prompt": False}
        prompt = (await self._upstream.post("/apply-template", body))["prompt"]
        return await self.of(prompt)


# Common checks


def _on_grammars(backend: Backend) -> str:
    return "grammars kept there" if backend.supports_grammars else "grammars kept here"


async def _compare(upstream: Upstream, vocabulary: Vocabulary, tokens: _VllmTokens | _LlamaServerTokens) -> str:
    """Compare the upstream's tokenizer and template with ours. Returns the findings for the operator.

    Raises:
        UpstreamMismatchError: they differ.
    """
    specials = list(vocabulary.specials)
    texts = [*vocabulary.texts, *((name, [vocabulary.specials[name]]) for name in specials)]
    limit = asyncio.Semaphore(8)

    async def theirs(text: str) -> list[int]:
        async with limit:
            return await tokens.of(text)

    try:
        found = await asyncio.gather(*(theirs(text) for text, _ in texts))
    except (RequestRejectedError, LookupError, TypeError):
        return "tokens not compared, since it does not tell them"
    for (text, ours), others in zip(texts, found, strict=True):
        if ours != others:
            raise UpstreamMismatchError(
                f"{upstream.url} serves another model than --model, or another version of it: {text!r} is "
                f"{others[:8]} there and {ours[:8]} here"
            )
    line_data, prompt = vocabulary.greeting
    try:
        greeting = await tokens.of_greeting(line_data)
    except (UpstreamError, LookupError, TypeError):
        return f"tokens of {len(texts)} texts as here, template not compared"
    if prompt[:1] != greeting[:1]:  # one of both has yet to get the token that prompts begin with
        prompt, greeting = (ids[ids[:1] == [vocabulary.bos] :] for ids in (prompt, greeting))
    # The rest is the generation prompt, which depends on the request (reasoning or not).
    if not greeting or prompt[: len(greeting)] != greeting:
        raise UpstreamMismatchError(
            f"{upstream.url} has another chat template than --model: a greeting begins with {greeting[:8]} there "
            f"and with {prompt[:8]} here. Take both from the same release of the model"
        )
    return f"tokens of {len(texts)} texts and the template as here"


def _ids(answer: Any) -> list[int]:  # noqa: ANN401 - JSON
    found = answer["tokens"]
    if not all(isinstance(token, int) for token in found):
        raise TypeError("no tokens")
    return list(found)


async def _require_tokens(upstream: Upstream, backend: Backend, vocabulary: Vocabulary) -> None:
    try:
        await _generate_tokens(upstream, backend, vocabulary)
    except RequestRejectedError as error:
        raise UpstreamMismatchError(f"{upstream.url} takes no tokens at {backend.path}: {error}") from error


async def _generate_tokens(
    upstream: Upstream,
    backend: Backend,
    vocabulary: Vocabulary,
    *,
    grammar: str | None = None,
    priority: Priority = "interactive",
) -> list[int]:
    """Generate a few tokens.

    Raises:
        UpstreamMismatchError: it answers without tokens.
    """
    job = Job(
        token_ids=vocabulary.greeting[1],
        max_tokens=8,
        stop_ids=list(vocabulary.ends),
        sampling=Sampling(temperature=0),
        grammar=grammar,
        priority=priority,
    )
    drawn: list[int] = []
    is_over = False
    async for chunk in upstream.stream_chunks(backend, backend.make_body(job, "trial"), {}):
        drawn += chunk.token_ids
        is_over |= chunk.finish_reason is not None
    if not drawn or not is_over:
        raise UpstreamMismatchError(f"{upstream.url} answers at {backend.path}, but not with tokens")
    return drawn


async def _supports_grammars(
    upstream: Upstream, backend: Backend, vocabulary: Vocabulary, grammars: GrammarCompiler
) -> bool:
    """Whether the upstream enforces our dialect of grammars."""
    guide = await asyncio.to_thread(grammars.create_matcher, _UNLIKELY_GRAMMAR, frozenset(vocabulary.ends), "")
    try:
        drawn = await _generate_tokens(upstream, backend, vocabulary, grammar=_UNLIKELY_GRAMMAR)
    except (UpstreamError, UpstreamMismatchError):
        return False
    return all(guide.accept_token(token) for token in drawn) and drawn[-1] in vocabulary.ends
