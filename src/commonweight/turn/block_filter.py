"""Filter of an answer's blocks: holds back what may begin a phrase that must not leave, and screens calls."""

import asyncio

from commonweight.charter.principle import Place
from commonweight.guard import FoundPhrase, Location, PhraseScanner, PlacedPhrase, Screening
from commonweight.messages.content import TextBlock
from commonweight.messages.events import (
    CitationsDelta,
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    InputJsonDelta,
    MessageDelta,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
)
from commonweight.messages.request import MessageRequest
from commonweight.messages.response import OutputBlock, OutputThinking, OutputToolUse
from commonweight.turn.answer import Answer
from commonweight.turn.held_events import HeldEvents

MAX_PREFILL_CHARACTERS = 2000
"""Of the end of a prefill, where a phrase may begin that the answer completes."""


class BlockFilter:
    """Screens the blocks of one answer before they leave.

    Text over blocks of the same kind is read as one: a citation between two of them ends no phrase. A tool call is
    screened when it is complete; a release gate holds it until then.

    Args:
        prefill: the end of the request, if the answer continues it.
    """

    def __init__(self, screening: Screening, answer: Answer, prefill: str = "") -> None:
        self._screening = screening
        self._answer = answer
        self._prefill = prefill[-MAX_PREFILL_CHARACTERS:]
        self._pending = HeldEvents()
        self._place: Place | None = None
        self._refusing: PhraseScanner | None = None
        self._recording: PhraseScanner | None = None
        self._fed = 0
        self._blocks: list[tuple[int, int]] = []
        """Where the text of each block begins in what is scanned, and the block's index."""
        self._tool = ""
        self._json: list[str] = []

    async def push(self, events: list[StreamEvent]) -> list[StreamEvent]:
        """Add events; returns those that hold no phrase, and no beginning of one. At a refusal there are none."""
        for event in events:
            await self._screen(event)
            if self._screening.refusal is not None:
                self._pending.clear()
                return []
            self._pending.add(event)
        return self._pending.take_ready(self._refusing.held_back if self._refusing else 0)

    async def _screen(self, event: StreamEvent) -> None:
        match event:
            case ContentBlockStart(index=index, content_block=block):
                self._begin_block(index, block)
            case ContentBlockDelta(delta=TextDelta(text=text) | ThinkingDelta(thinking=text)):
                self._feed(text)
            case ContentBlockDelta(index=index, delta=CitationsDelta(citation=citation)):
                await self._find([value for _, value in citation if isinstance(value, str)], index)
            case ContentBlockDelta(delta=InputJsonDelta(partial_json=part)):
                self._json.append(part)
            case ContentBlockStop(index=index) if self._place == "tool_input":
                await self._screening.screen_call(self._tool, "".join(self._json), f"content[{index}]")
            case ContentBlockStop(index=index) if self._place == "thinking":
                # What is not shown leaves with the signature.
                await self._find([self._answer.reasoning], index)
            case MessageDelta():
                self._finish_text()
            case _:
                pass

    def _begin_block(self, index: int, block: OutputBlock) -> None:
        place = _get_place(block)
        if isinstance(block, OutputToolUse):
            self._tool, self._json = block.name, []
        if place == self._place:
            self._report(self._refusing.begin_block() if self._refusing else [])
            self._report(self._recording.begin_block() if self._recording else [])
        else:
            self._finish_text()
            self._begin_text(place)
        self._blocks.append((self._fed, index))

    def _begin_text(self, place: Place) -> None:
        self._place, self._fed, self._blocks = place, 0, []
        if place == "tool_input":
            return
        refusing, recording = self._screening.phrases.get_indexes(place)
        self._refusing = PhraseScanner(refusing) if refusing else None
        self._recording = PhraseScanner(recording) if recording else None
        if place == "output":
            for scanner in filter(None, (self._refusing, self._recording)):
                scanner.feed(self._prefill)
            self._fed, self._prefill = len(self._prefill), ""

    def _feed(self, text: str) -> None:
        self._fed += len(text)
        for scanner in filter(None, (self._refusing, self._recording)):
            self._report(scanner.feed(text))

    def _finish_text(self) -> None:
        for scanner in filter(None, (self._refusing, self._recording)):
            self._report(scanner.finish())
        self._refusing = self._recording = None

    def _report(self, found: list[FoundPhrase]) -> None:
        """Report phrases with their spans in the block where they end; one that was asked for is none of ours."""
        assert self._place is not None
        for phrase in found:
            begin, index = next(
                (block for block in reversed(self._blocks) if block[0] < phrase.end), (phrase.end, None)
            )
            if index is not None:
                span = max(0, phrase.start - begin), phrase.end - begin
                placed = PlacedPhrase(phrase.principle, span)
                self._screening.add_phrases([placed], self._place, Location(f"content[{index}]"))

    async def _find(self, texts: list[str], index: int) -> None:
        assert self._place is not None
        found = await asyncio.to_thread(list, self._screening.phrases.find(texts, self._place))
        self._screening.add_phrases(found, self._place, Location(f"content[{index}]"))


def find_prefill(request: MessageRequest) -> str:
    """Find the text that the answer continues; none, if the last message is not the assistant's."""
    last = request.messages[-1]
    return "".join(block.text for block in last.content if isinstance(block, TextBlock)) * (
        last.role == "assistant"
    )


def _get_place(block: OutputBlock) -> Place:
    match block:
        case OutputThinking():
            return "thinking"
        case OutputToolUse():
            return "tool_input"
        case _:
            return "output"
