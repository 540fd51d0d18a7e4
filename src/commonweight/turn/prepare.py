"""Preparation of a request: reasoning restored, documents read, context edited, prompt rendered."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TypeVar

from commonweight.documents import DocumentReader
from commonweight.engines.contract import Priority
from commonweight.guard import ClosedExchanges
from commonweight.messages.content import ContentBlock, TextBlock, ThinkingBlock
from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.request import CountTokensRequest, MessageParam
from commonweight.messages.response import AppliedEdits
from commonweight.prompting import Prompt, Renderer
from commonweight.prompting.documents import (
    Document,
    UploadedFile,
    collect_documents,
    list_file_ids,
    read_files,
    refers_to_files,
)
from commonweight.signing.signer import Signer, TamperedError
from commonweight.threads import run_in_thread
from commonweight.turn.edits import apply_edits

Request = TypeVar("Request", bound=CountTokensRequest)

LoadFiles = Callable[[str, Sequence[str]], Awaitable[Mapping[str, UploadedFile]]]
"""A tenant's uploaded files by their ids. Raises ``NotFoundError`` for one that is not there, or not theirs."""

FindClosed = Callable[[Sequence[MessageParam], str, Collection[str]], ClosedExchanges]
"""Finds the closed exchanges of a tenant's conversation, for a key that sets some principles aside."""

LARGE_REQUEST_BYTES = 256 * 1024
"""Bytes of a request, with the text of its documents, from which it counts as large."""
MAX_EDITED_WINDOWS = 8
"""Most windows that a conversation certainly fills before it is edited."""
MAX_DOCUMENT_PROCESSES = 4
"""Interactive requests whose documents are read at the same time."""


@dataclass(frozen=True)
class PreparedPrompt:
    """A rendered prompt, with what the edits removed."""

    prompt: Prompt
    edits: AppliedEdits | None = None
    """None: the client asked for no edits."""
    closed: ClosedExchanges = ClosedExchanges()  # noqa: RUF009 - immutable
    """Exchanges that the guard refused, which the prompt leaves out."""

    @property
    def original_token_count(self) -> int:
        """Tokens of the prompt before the edits."""
        cleared = sum(edit.cleared_input_tokens for edit in self.edits.applied_edits) if self.edits else 0
        return len(self.prompt.token_ids) + cleared


class PromptPreparer:
    """Renders the prompts of requests as they will run.

    Large requests are rendered one at a time, and so are those of batches: seconds of work must not keep small
    ones waiting. Documents are read in child processes, which wait for nothing but each other.
    """

    def __init__(
        self,
        renderer: Renderer,
        signer: Signer,
        load_files: LoadFiles | None = None,
        find_closed: FindClosed | None = None,
    ) -> None:
        self._renderer = renderer
        self._signer = signer
        self._load_files = load_files
        self._find_closed = find_closed
        self._rendering = {"interactive": asyncio.Semaphore(1), "batch": asyncio.Semaphore(1)}
        self._reading = {
            "interactive": asyncio.Semaphore(MAX_DOCUMENT_PROCESSES),
            "batch": asyncio.Semaphore(1),
        }

    async def prepare(
        self,
        request: CountTokensRequest,
        window: int,
        tenant: str = "",
        size: int = 0,
        priority: Priority = "interactive",
        waived: Collection[str] = (),
    ) -> PreparedPrompt:
        """Render the prompt of a request of ``size`` bytes.

        Args:
            window: tokens; what is certainly longer is refused without the work of counting it.
            waived: principles that the key sets aside: what these refused is not closed.

        Raises:
            InvalidRequestError: it cannot run, in the API's words.
            NotFoundError: it refers to a file that is not there.
        """
        messages = [_restore_reasoning(message, i, self._signer) for i, message in enumerate(request.messages)]
        closed = self._find_closed(request.messages, tenant, waived) if self._find_closed else ClosedExchanges()
        messages = closed.remove_from(messages)
        files = await self._load_files(tenant, list_file_ids(request.messages)) if self._load_files else None
        # Held until the prompt is rendered, because so long the documents' contents stay in memory.
        async with self._reading[priority] if refers_to_files(request.messages) else nullcontext():
            async with DocumentReader() as reader:
                contents = await read_files(request.messages, reader, files)
            documents = collect_documents(request.messages, contents)
            size += sum(len(part) for document in documents for part in document.parts)
            is_gated = size >= LARGE_REQUEST_BYTES or priority == "batch"
            async with self._rendering[priority] if is_gated else nullcontext():
                ready = await self._render(request, messages, window, tenant, documents)
        return replace(ready, closed=closed)

    async def _render(
        self,
        request: CountTokensRequest,
        messages: Sequence[MessageParam],
        window: int,
        tenant: str,
        documents: Sequence[Document],
    ) -> PreparedPrompt:
        async def render(edited: Sequence[MessageParam], most: int = window) -> Prompt:
            # Tokenizing runs without the interpreter lock, so other requests go on meanwhile.
            return await run_in_thread(
                self._renderer.render, _replace_messages(request, edited), tenant, documents, most
            )

        async def count(edited: Sequence[MessageParam]) -> int:
            return len((await render(edited, MAX_EDITED_WINDOWS * window)).token_ids)

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
