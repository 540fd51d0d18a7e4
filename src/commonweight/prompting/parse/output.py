"""Output parser: incremental detokenization, and parsing into reasoning, text, tool calls and citations."""

import codecs
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from commonweight.prompting.constrain.grammar import CITATION_TAGS, AnswerRules
from commonweight.prompting.constrain.schema import Schema
from commonweight.prompting.formats import CALL_ID, Tags, ToolCallFormat, iter_texts, map_texts
from commonweight.prompting.parse.buffer import MarkupChars, TextBuffer, match_length
from commonweight.prompting.parse.stops import StopScanner
from commonweight.prompting.parse.tool_input import ArgumentInputParser, JsonInputParser
from commonweight.prompting.tokens.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Text:
    """Text delta."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Reasoning delta."""

    text: str


@dataclass(frozen=True, slots=True)
class CallOpened:
    """Start of a tool call. ``call_id``: the id that the model generated, if its format has ids."""

    name: str
    call_id: str | None


@dataclass(frozen=True, slots=True)
class CallInput:
    """Delta of the call's input, as JSON text."""

    json: str


@dataclass(frozen=True, slots=True)
class CallClosed:
    """End of a tool call."""


@dataclass(frozen=True, slots=True)
class Quote:
    """Citation: a quote of a document that supports the text before it."""

    document: int
    text: str


Piece = Text | Reasoning | CallOpened | CallInput | CallClosed | Quote


@dataclass(frozen=True)
class ParserConfig:
    """Settings of the parser for one answer."""

    family: ToolCallFormat
    thinking: Tags | None = None
    """Tags around reasoning; None: the answer has none."""
    is_thinking: bool = False
    """The prompt ends inside the reasoning."""
    continues_text: bool = False
    """The answer continues text at the end of the prompt."""
    is_json: bool = False
    """The text, if there is any, is JSON and the whole answer."""
    tools: Mapping[str, Schema] | None = None
    """Input schemas of the tools that may be called, by name."""
    has_quotes: bool = False
    """The answer may hold citations."""
    turn_ends: tuple[str, ...] = ()
    """Text that ends the turn, for models without an end token."""

    @classmethod
    def from_rules(
        cls, rules: AnswerRules, family: ToolCallFormat, thinking: Tags | None, turn_ends: tuple[str, ...] = ()
    ) -> "ParserConfig":
        """Settings for an answer under ``rules``, of a model with the tags ``thinking`` around its reasoning."""
        return cls(
            family,
            thinking if rules.thinking != "over" or family.text_openings else None,
            is_thinking=rules.thinking == "begun",
            continues_text=rules.continues_text,
            is_json=rules.schema is not None,
            tools=rules.tools if rules.may_call else {},
            has_quotes=bool(rules.quotable),
            turn_ends=turn_ends,
        )


class OutputParser:
    """Incremental parser of one answer's tokens into pieces.

    A character whose bytes are spread over tokens appears with its last byte; an incomplete one at the end is
    dropped. Stop sequences are matched in text only, never in markup, reasoning or tool calls.
    """

    def __init__(self, tokenizer: Tokenizer, config: ParserConfig, stop_sequences: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._drops_space = tokenizer.marks_word_starts and not config.continues_text
        self._stops = StopScanner([*stop_sequences, *config.turn_ends])
        self._stop_sequences = frozenset(stop_sequences)
        self._config = config
        self._tools = config.tools or {}
        family, thinking = config.family, config.thinking
        parts = [part for part in (thinking, family if self._tools or family.text_openings else None) if part]
        self._markup = MarkupChars(tokenizer, [text for part in parts for text in iter_texts(part)])
        self._buffer = TextBuffer(self._markup)
        self._format = family = map_texts(family, self._markup.encode)
        self._thinking = map_texts(thinking, self._markup.encode) if thinking else None
        self._heads = self._find_heads(family.opening)
        self._later_heads = self._find_heads(family.between)
        self._input: JsonInputParser | ArgumentInputParser = JsonInputParser()
        self._openings = self._find_openings()
        calls_come_first = family.is_whole_answer or config.is_json
        markers = [
            "" if config.is_json else family.after_text,
            family.trigger if self._tools and not calls_come_first else "",
            CITATION_TAGS.opening if config.has_quotes else "",
        ]
        self._markers = [marker for marker in markers if marker]
        self._held_back_space = ""
        """White space at the end of the text so far, held back; it is dropped if a call follows."""
        self._is_beginning = True
        self._has_reasoning = False
        self._state: Callable[[], Iterator[Piece]] = self._parse_start
        if config.is_thinking:
            self._state = self._parse_reasoning
        elif config.continues_text:
            self._state = self._parse_text
        self.has_calls = False
        """Whether the answer has tool calls so far."""
        self.thinking_tokens = 0
        """Number of reasoning tokens so far, without tags that are special tokens."""

    @property
    def is_complete(self) -> bool:
        """Whether a stop sequence, or text that ends the turn, has ended the answer."""
        return self._stops.matched is not None

    @property
    def stop_sequence(self) -> str | None:
        """The client's stop sequence that ended the answer, if any."""
        return self._stops.matched if self._stops.matched in self._stop_sequences else None

    def feed(self, token_id: int) -> list[Piece]:
        """Parse the next token; returns the pieces that are certain."""
        was_reasoning = self._state == self._parse_reasoning
        self._buffer.text += self._decode(token_id)
        pieces = list(self._parse())
        self.thinking_tokens += was_reasoning and self._state == self._parse_reasoning
        return pieces

    def flush(self, *, is_cut: bool = False) -> list[Piece]:
        """End the answer; returns the pieces that were held back.

        ``is_cut``: a limit ended the answer, so that an incomplete beginning of markup at its end is dropped.
        """
        self._buffer.is_last, self._buffer.is_cut = True, is_cut
        return list(self._parse())

    def _decode(self, token_id: int) -> str:
        char = self._markup.by_id.get(token_id)
        if char is not None:
            self._utf8.reset()  # drop an incomplete character before markup
            return char
        text = self._utf8.decode(self._tokenizer.decode(token_id))
        if text and self._drops_space:
            self._drops_space = False
            text = text.removeprefix(" ")
        return text

    # States of the parser: one method each, which consumes as much of the buffer as is certain.

    def _parse(self) -> Iterator[Piece]:
        while True:
            before = self._state, len(self._buffer.text)
            yield from self._state()
            if self.is_complete or (self._state, len(self._buffer.text)) == before:
                return

    def _parse_start(self) -> Iterator[Piece]:
        """At the beginning, and after reasoning or a part of the text."""
        buffer, glue = self._buffer, self._format.glue
        body = buffer.text.lstrip() if self._openings else buffer.text
        body = body.removeprefix(glue)
        opening = next((opening for opening in self._openings if body.startswith(opening)), None)
        may_open = not body or any(opening.startswith(body) for opening in (*self._openings, glue))
        if opening is not None:
            self._state = self._openings[opening]
            buffer.text = body if self._state == self._parse_call else body.removeprefix(opening)
        elif not may_open or (buffer.is_last and (not buffer.is_cut or self._config.is_json)):
            # White space at the very beginning belongs to the text.
            buffer.text = buffer.text if self._is_beginning else body
            self._state = self._parse_text
        yield from ()

    def _parse_reasoning(self) -> Iterator[Piece]:
        assert self._thinking is not None
        text, marker = self._buffer.take_until(self._thinking.closing)
        text = self._hold_back_space(text)
        if not self._has_reasoning:
            text = text.lstrip()
        if text:
            self._has_reasoning = True
            yield Reasoning(text)
        if marker is not None:
            self._held_back_space = ""
            self._is_beginning = False
            self._state = self._parse_start

    def _parse_text(self) -> Iterator[Piece]:
        text, marker = self._buffer.take_until(*self._markers)
        is_over = marker is not None or self._buffer.is_last
        yield from self._emit_text(text, is_over=is_over)
        if self.is_complete or (marker is None and is_over):
            yield from self._emit_space()
        elif marker is not None and marker == self._format.after_text:
            self._held_back_space = ""
            self._is_beginning = False
            self._state = self._parse_start
        elif marker is not None:
            self._buffer.text = marker + self._buffer.text
            self._state = self._parse_quote if marker == CITATION_TAGS.opening else self._parse_call

    def _parse_quote(self) -> Iterator[Piece]:
        number, is_opened, rest = self._buffer.text.removeprefix(CITATION_TAGS.opening).partition('">')
        text, is_closed, rest = rest.partition(CITATION_TAGS.closing)
        if is_opened and not number.isdecimal():
            yield from self._emit_text(self._buffer.take(len(CITATION_TAGS.opening)))
            self._state = self._parse_text
        elif is_closed:
            yield from self._emit_space()
            yield Quote(int(number), self._markup.decode(text))
            self._buffer.text = rest
            self._state = self._parse_text
        elif self._buffer.is_last:
            self._buffer.text = ""  # an incomplete citation
            self._state = self._parse_text

    def _parse_call(self) -> Iterator[Piece]:
        text = self._buffer.text
        may_open = False
        for head, (name, length) in (self._later_heads if self.has_calls else self._heads).items():
            end = match_length(head, text)
            if end is not None and end <= len(text):
                yield from self._open_call(name, head[:length])
                return
            may_open = may_open or end is not None
        if may_open and not self._buffer.is_last:
            return
        if may_open or self.has_calls:
            self._buffer.text = ""  # an incomplete call before its input, or the end of the section of calls
        else:
            yield from self._emit_text(self._buffer.take(len(self._format.trigger)))
            self._state = self._parse_text

    def _open_call(self, name: str, head: str) -> Iterator[Piece]:
        start = head.find(CALL_ID)
        yield CallOpened(name, self._buffer.text[start : start + len(CALL_ID)] if start >= 0 else None)
        self._buffer.take(match_length(head, self._buffer.text) or 0)
        syntax = self._format.arguments
        self._input = (
            ArgumentInputParser(syntax, self._format.after_input, self._tools[name])
            if syntax
            else JsonInputParser()
        )
        self._held_back_space = ""
        self.has_calls = True
        self._state = self._parse_input

    def _parse_input(self) -> Iterator[Piece]:
        yield from map(CallInput, self._input.read(self._buffer))
        if self._input.is_complete:
            yield CallClosed()
            self._state = self._parse_input_end

    def _parse_input_end(self) -> Iterator[Piece]:
        length = match_length(self._format.after_input, self._buffer.text) or 0
        if length <= len(self._buffer.text) or self._buffer.is_last:
            self._buffer.take(length)
            self._state = self._parse_call
        yield from ()

    # Shared by the states

    def _emit_text(self, text: str, *, is_over: bool = False) -> Iterator[Piece]:
        """Text, without what may begin a stop sequence (unless the text is over) and white space before a call."""
        text = self._stops.feed(text)
        if is_over:
            text += self._stops.flush()
        if self._tools:
            text = self._hold_back_space(text)
        if text:
            yield Text(text)

    def _emit_space(self) -> Iterator[Piece]:
        if self._held_back_space:
            yield Text(self._held_back_space)
            self._held_back_space = ""

    def _hold_back_space(self, text: str) -> str:
        """The text without white space at its end, held back because a call or the end of reasoning may follow."""
        text = self._held_back_space + text
        body = text.rstrip()
        self._held_back_space = text[len(body) :]
        return body

    def _find_openings(self) -> dict[str, Callable[[], Iterator[Piece]]]:
        """Markup that may begin a part of the answer, and the state after it."""
        family = self._format
        openings = dict.fromkeys(family.text_openings, self._parse_text)
        if self._thinking:
            openings[self._thinking.opening] = self._parse_reasoning
        if self._tools:
            openings |= dict.fromkeys(
                self._heads if family.is_whole_answer else [family.trigger], self._parse_call
            )
        return openings

    def _find_heads(self, before: str) -> dict[str, tuple[str, int]]:
        """Heads of calls of each tool, with its name and the length of the head without any input."""
        family = self._format
        # Without markup after the name, the markup that may follow ends it.
        ends = (
            [""]
            if family.before_input or not family.arguments
            else [family.arguments.before_key, family.after_input]
        )
        heads = {name: before + family.before_name + name + family.before_input for name in self._tools}
        return {head + end: (name, len(head)) for name, head in heads.items() for end in ends}
