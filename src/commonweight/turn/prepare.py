"""Preparation of a request: reasoning restored from signatures, context edited, prompt rendered."""

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

from commonweight.messages.content import ContentBlock, TextBlock, ThinkingBlock
from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.request import CountTokensRequest, MessageParam
from commonweight.messages.response import AppliedEdits
from commonweight.prompting import Prompt, Renderer
from commonweight.prompting.documents import UploadedFile, collect_documents, list_file_ids
from commonweight.signing.signer import Signer, TamperedError
from commonweight.turn.edits import apply_edits

Request = TypeVar("Request", bound=CountTokensRequest)

LoadFiles = Callable[[str, Sequence[str]], AbstractAsyncContextManager[Mapping[str, UploadedFile]]]
"""A tenant's uploaded files by their ids, while they are read and rendered. Raises ``NotFoundError`` for one that
is not there, or not theirs."""


@dataclass(frozen=True)
class PreparedPrompt:
    """A rendered prompt, with what the edits removed."""

    prompt: Prompt
    edits: AppliedEdits | None = None
    """None: the client asked for no edits."""

    @property
    def original_token_count(self) -> int:
        """Tokens of the prompt before the edits."""
        cleared = sum(edit.cleared_input_tokens for edit in self.edits.applied_edits) if self.edits else 0
        return len(self.prompt.token_ids) + cleared


async def prepare_prompt(
    request: CountTokensRequest,
    renderer: Renderer,
    signer: Signer,
    tenant: str = "",
    load_files: LoadFiles | None = None,
    window: int | None = None,
) -> PreparedPrompt:
    """Render the prompt of a request as it will run.

    ``window``: tokens; what is certainly longer is refused without the work of counting it.

    Raises:
        InvalidRequestError: it cannot run, in the API's words.
        NotFoundError: it refers to a file that is not there.
    """
    messages = [_restore_reasoning(message, i, signer) for i, message in enumerate(request.messages)]
    loading: AbstractAsyncContextManager[Mapping[str, UploadedFile] | None] = (
        load_files(tenant, list_file_ids(request.messages)) if load_files else nullcontext()
    )
    async with loading as files:
        documents = await asyncio.to_thread(collect_documents, request.messages, files)

        async def render(edited: Sequence[MessageParam]) -> Prompt:
            # Tokenizing runs without the interpreter lock, so other requests go on meanwhile.
            replaced = _replace_messages(request, edited)
            return await asyncio.to_thread(renderer.render, replaced, tenant, documents, window)

        async def count(edited: Sequence[MessageParam]) -> int:
            return len((await render(edited)).token_ids)

        if request.context_management is None:
            return PreparedPrompt(await render(messages))
        edited = await apply_edits(messages, request.context_management.edits, count)
        return PreparedPrompt(await render(edited.messages), edited.report)


def fingerprint_conversation(request: CountTokensRequest) -> str:
    """Fingerprint a conversation by its first message: the same in all its turns.

    How a text is written, as a string or as a block, with a cache mark or without, changes nothing.
    """
    if not request.messages:
        return ""
    name = hashlib.blake2b(digest_size=16)
    for block in request.messages[0].content:
        name.update(block.text.encode(errors="replace") if isinstance(block, TextBlock) else block.type.encode())
        name.update(b"\0")
    return name.hexdigest()


def _replace_messages(request: Request, messages: Sequence[MessageParam]) -> Request:
    return request.model_copy(update={"messages": list(messages)})


def _restore_reasoning(message: MessageParam, index: int, signer: Signer) -> MessageParam:
    """Restore the reasoning that a message's signatures carry; other servers' signatures are ignored."""
    if not any(isinstance(block, ThinkingBlock) for block in message.content):
        return message
    content: list[ContentBlock] = []
    for i, block in enumerate(message.content):
        if not isinstance(block, ThinkingBlock):
            content.append(block)
            continue
        where = f"messages.{index}.content.{i}"
        try:
            reasoning = signer.read(block.signature)
        except TamperedError as error:
            raise InvalidRequestError(f"{where}: Invalid `signature` in `thinking` block") from error
        if reasoning is None:
            continue
        if block.thinking not in ("", reasoning):
            raise InvalidRequestError(f"{where}: `thinking` blocks in assistant messages cannot be modified")
        content.append(block.model_copy(update={"thinking": reasoning}))
    return message.model_copy(update={"content": content})
