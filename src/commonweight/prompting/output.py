"""Generated tokens to the pieces of an answer: reasoning, text, calls of tools, quotes."""

import codecs
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from commonweight.prompting.formats import CALL_ID, Format, Tags
from commonweight.prompting.grammar import QUOTES, is_text
from commonweight.prompting.quoting import Specials
from commonweight.prompting.schema import Schema
from commonweight.prompting.stops import StopScanner
from commonweight.prompting.tokenizer import Tokenizer

_SPECIAL = "\udc80"
# Stands before a special token in the text that is parsed. A lone surrogate is in no text that a model writes.


@dataclass(frozen=True, slots=True)
class Text:
    """More text."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """More reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class CallOpened:
    """A call of a tool begins. ``call_id``: what the model itself calls it, if its format has ids."""

    name: str
    call_id: str | None


@dataclass(frozen=True, slots=True)
class CallInput:
    """More of the call's input, as JSON."""

    json: str


@dataclass(frozen=True, slots=True)
class CallClosed:
    """The call's input is complete."""


@dataclass(frozen=True, slots=True)
class Quote:
    """The text before it rests on these words of a document."""

    document: int
    text: str


Piece = Text | Reasoning | CallOpened | CallInput | CallClosed | Quote


@dataclass(frozen=True)
class Reading:
    """How an answer is to be read."""

    family: Format
    thinking: Tags | None = None
    """What stands around reasoning; None: there is none."""
    is_thinking: bool = False
    """The prompt ends within the reasoning."""
    is_text: bool = False
    """The answer goes on with text that the prompt ends with."""
    tools: Mapping[str, Schema] | None = None
    """What may be called."""
    has_quotes: bool = False
    turn_ends: tuple[str, ...] = ()
    """Text that ends the turn, for want of a token that does."""


class OutputParser:
    """Turns one answer's tokens into pieces.

    A character whose bytes are spread over tokens appears with its last byte; one that the end cuts off does not
    appear. Stop sequences are looked for in text only.
    """

    def __init__(self, tokenizer: Tokenizer, reading: Reading, stop_sequences: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._reading = reading
        self._tools = reading.tools or {}
        self._stops = StopScanner([*stop_sequences, *reading.turn_ends])
        self._stop_sequences = frozenset(stop_sequences)
        self._drops_space = tokenizer.marks_word_starts and not reading.is_text
        specials = Specials(tokenizer.special_tokens)
        family, thinking = reading.family, reading.thinking
        self._is_structure = {
            tokenizer.special_tokens[token]: _SPECIAL + token
            for token in tokenizer.special_tokens
            if any(token in text for text in _texts(family, thinking))
        }

        def spelled(text: str) -> str:
            parts, done = [], 0
            for start in specials.beginnings(text):
                if start >= done:
                    end = start + specials.at(text, start)
                    parts += [text[done:start], _SPECIAL, text[start:end]]
                    done = end
            return "".join(parts) + text[done:]

        self._thinking = thinking and Tags(spelled(thinking.opening), spelled(thinking.closing))
        self._text_openings = tuple(spelled(opening) for opening in family.text_openings)
        self._text_end = spelled(thinking.closing) if thinking and family.text_openings else ""
        self._glue = spelled(family.glue)
        self._trigger = spelled(family.trigger)
        self._heads = self._all_heads(family.opening, spelled)
        self._next_heads = self._all_heads(family.between, spelled)
        self._after_input = spelled(family.after_input)
        self._key, self._value, self._value_end = (
            (spelled(a.before_key), spelled(a.before_value), spelled(a.after_value))
            if (a := family.arguments)
            else ("", "", "")
        )
        self._buffer = ""
        self._space = ""
        self._is_last = False
        self._has_reasoning = False
        self._has_calls = False
        self._json = _JsonEnd()
        self._properties: Mapping[str, object] = {}
        self._is_first_argument = True
        self._state: Callable[[], Iterator[Piece]] = self._between
        if reading.is_thinking:
            self._state = self._reason
        elif reading.is_text:
            self._state = self._text
        self.thinking_tokens = 0
        """Tokens that were reasoning."""

    @property
    def has_calls(self) -> bool:
        """Whether a tool was called."""
        return self._has_calls

    @property
    def is_complete(self) -> bool:
        """Whether the text itself ended the answer: no further token matters."""
        return self._stops.matched is not None

    @property
    def stop_sequence(self) -> str | None:
        """The client's stop sequence that ended the answer, if one did."""
        return self._stops.matched if self._stops.matched in self._stop_sequences else None

    def feed(self, token_id: int) -> list[Piece]:
        """Take the next token; returns what can be told now."""
        if self._state == self._reason:
            self.thinking_tokens += 1
        structure = self._is_structure.get(token_id)
        text = self._utf8.decode(self._tokenizer.decode(token_id)) if structure is None else structure
        if text and self._drops_space:
            self._drops_space = False
            text = text.removeprefix(" ")
        self._buffer += text
        return list(self._read())

    def flush(self) -> list[Piece]:
        """No more tokens come; returns what was held back."""
        self._is_last = True
        pieces = list(self._read())
        if text := self._stops.flush():
            pieces.append(Text(text))
        return pieces

    # One method for each place in an answer. Each takes from the buffer what it understands.

    def _read(self) -> Iterator[Piece]:
        while True:
            before = self._state, len(self._buffer)
            yield from self._state()
            if self._stops.matched is not None or (self._state, len(self._buffer)) == before:
                return

    def _between(self) -> Iterator[Piece]:
        """At the beginning, and after reasoning or a stretch of text."""
        openings = [*self._text_openings]
        if self._thinking:
            openings.append(self._thinking.opening)
        if self._tools:
            openings += self._heads if self._reading.family.is_whole_answer else [self._trigger]
        body = self._buffer.lstrip() if openings else self._buffer
        body = body.removeprefix(self._glue)
        if not self._is_last and (not body or any(_may_become(body, opening) for opening in openings)):
            return
        opening = next((opening for opening in openings if body.startswith(opening)), None)
        if opening is None:
            # Without reasoning before it, the space belongs to the text.
            self._buffer = body if self.thinking_tokens else self._buffer
            self._state = self._text
        elif self._thinking and opening == self._thinking.opening:
            self._buffer = body[len(opening) :]
            self._state = self._reason
        elif opening in self._text_openings:
            self._buffer = body[len(opening) :]
            self._state = self._text
        else:
            self._buffer = body
            self._state = self._call
        yield from ()

    def _reason(self) -> Iterator[Piece]:
        assert self._thinking is not None
        text, marker = self._until([self._thinking.closing])
        text = self._spaced(text)
        if not self._has_reasoning:
            text = text.lstrip()
        if text:
            self._has_reasoning = True
            yield Reasoning(text)
        if marker is not None:
            self._space = ""
            self._state = self._between

    def _text(self) -> Iterator[Piece]:
        markers = [QUOTES.opening] if self._reading.has_quotes else []
        if self._text_end:
            markers.append(self._text_end)
        if self._tools and not self._reading.family.is_whole_answer:
            markers.append(self._trigger)
        text, marker = self._until(markers)
        if self._tools or self._reading.thinking:
            text = self._spaced(text)
        shown = self._stops.feed(text)
        if shown:
            yield Text(shown)
        if self._stops.matched is None and marker is not None:
            if held := self._stops.flush():
                yield Text(held)
            self._space = ""
            self._buffer = marker * (marker != self._text_end) + self._buffer
            self._state = {self._text_end: self._between, QUOTES.opening: self._quote}.get(marker, self._call)
        elif self._is_last and self._space:
            shown, self._space = self._stops.feed(self._space), ""
            if shown:
                yield Text(shown)

    def _call(self) -> Iterator[Piece]:
        heads = self._next_heads if self._has_calls else self._heads
        for head, (name, length) in heads.items():
            if len(self._buffer) >= len(head) and _agrees(head, self._buffer[: len(head)]):
                yield from self._open(head[:length], name)
                return
        if not any(_agrees(head, self._buffer) for head in heads) or self._is_last:
            if self._is_last:
                self._buffer = ""  # a call that was cut off before its input began
            elif self._has_calls:
                self._state = self._after_calls
            else:
                self._state = self._plain

    def _plain(self) -> Iterator[Piece]:
        """What looked like a call was text."""
        yield Text(self._buffer.replace(_SPECIAL, ""))
        self._buffer, self._state = "", self._text

    def _after_calls(self) -> Iterator[Piece]:
        """Nothing but the end of the section of calls belongs here."""
        self._buffer = ""
        yield from ()

    def _open(self, head: str, name: str) -> Iterator[Piece]:
        call_id = _call_id(head, self._buffer)
        self._buffer = self._buffer[len(head) :]
        self._has_calls = True
        yield CallOpened(name, call_id)
        self._json = _JsonEnd()
        self._is_first_argument = True
        found = self._tools[name].get("properties", {})
        self._properties = found if isinstance(found, dict) else {}
        self._state = self._input if self._reading.family.arguments is None else self._arguments

    def _input(self) -> Iterator[Piece]:
        end = self._json.find(self._buffer)
        text, self._buffer = self._buffer[:end], self._buffer[end:]
        if text:
            yield CallInput(text)
        if self._json.is_complete:
            self._state = self._close

    def _close(self) -> Iterator[Piece]:
        if len(self._buffer) < len(self._after_input) and not self._is_last:
            return
        self._buffer = self._buffer[len(self._after_input) :]
        yield CallClosed()
        self._state = self._call

    def _arguments(self) -> Iterator[Piece]:
        if self._buffer.startswith(self._key):
            key, found, rest = self._buffer[len(self._key) :].partition(self._value)
            if found:
                self._buffer = rest
                opening = "{" if self._is_first_argument else ", "
                self._is_first_argument = False
                yield CallInput(f"{opening}{json.dumps(key, ensure_ascii=False)}: ")
                self._state = self._text_argument if is_text(self._properties.get(key)) else self._json_argument
                if self._state == self._text_argument:
                    yield CallInput('"')
        elif len(self._buffer) >= len(self._after_input) and self._buffer.startswith(self._after_input):
            yield CallInput("{}" if self._is_first_argument else "}")
            self._state = self._close

    def _text_argument(self) -> Iterator[Piece]:
        text, marker = self._until([self._value_end])
        if text:
            yield CallInput(json.dumps(text, ensure_ascii=False)[1:-1])
        if marker is not None:
            yield CallInput('"')
            self._state = self._arguments

    def _json_argument(self) -> Iterator[Piece]:
        text, marker = self._until([self._value_end])
        if text:
            yield CallInput(text)
        if marker is not None:
            self._state = self._arguments

    def _quote(self) -> Iterator[Piece]:
        body = self._buffer[len(QUOTES.opening) :]
        number, is_opened, rest = body.partition('">')
        text, is_closed, rest = rest.partition(QUOTES.closing)
        if is_opened and is_closed:
            yield Quote(int(number), text)
            self._buffer, self._state = rest, self._text
        elif self._is_last:
            self._buffer, self._state = "", self._text  # a quote that was cut off

    # What they share

    def _all_heads(self, before: str, spelled: Callable[[str], str]) -> dict[str, tuple[str, int]]:
        """What a call of each tool begins with, its name, and how much of that is no input."""
        family = self._reading.family
        # Where nothing ends the name, what may follow it does.
        around = family.arguments
        ends = [""] if family.before_input or not around else [around.before_key, family.after_input]
        heads: dict[str, tuple[str, int]] = {}
        for name in self._tools:
            head = spelled(before + family.before_name + name + family.before_input)
            heads |= {head + spelled(end): (name, len(head)) for end in ends}
        return heads

    def _until(self, markers: Sequence[str]) -> tuple[str, str | None]:
        """The buffer up to the first marker, which is taken, too; without one, as far as none can have begun."""
        found = [(place, marker) for marker in markers if (place := self._buffer.find(marker)) >= 0]
        if found:
            place, marker = min(found)
            text, self._buffer = self._buffer[:place], self._buffer[place + len(marker) :]
            return text.replace(_SPECIAL, ""), marker
        longest = max((len(marker) for marker in markers), default=1) - 1
        held = 0
        if not self._is_last:
            lengths = range(min(longest, len(self._buffer)), 0, -1)
            held = next((n for n in lengths if any(m.startswith(self._buffer[-n:]) for m in markers)), 0)
        end = len(self._buffer) - held
        text, self._buffer = self._buffer[:end], self._buffer[end:]
        return text.replace(_SPECIAL, ""), None

    def _spaced(self, text: str) -> str:
        """Without the space at its end, which is held back: a call may follow, or the end of reasoning."""
        text = self._space + text
        body = text.rstrip()
        self._space = text[len(body) :]
        return body


class _JsonEnd:
    """Finds where a JSON object that arrives in parts is complete."""

    def __init__(self) -> None:
        self._depth = 0
        self._is_string = self._is_escaped = False
        self.is_complete = False

    def find(self, text: str) -> int:
        """How many characters of ``text`` belong to the object."""
        for i, c in enumerate(text):
            if self._is_escaped:
                self._is_escaped = False
            elif self._is_string:
                self._is_escaped = c == "\\"
                self._is_string = c != '"'
            elif c == '"':
                self._is_string = True
            elif c in "{[":
                self._depth += 1
            elif c in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self.is_complete = True
                    return i + 1
        return len(text)


def _texts(family: Format, thinking: Tags | None) -> list[str]:
    texts = [family.trigger, family.opening, family.before_name, family.before_input, family.after_input]
    texts += [family.between, family.closing, family.glue, *family.text_openings]
    if family.arguments:
        texts += [family.arguments.before_key, family.arguments.before_value, family.arguments.after_value]
    return texts + ([thinking.opening, thinking.closing] if thinking else [])


def _may_become(text: str, whole: str) -> bool:
    return len(text) < len(whole) and _agrees(whole, text)


def _agrees(pattern: str, text: str) -> bool:
    """Whether the text is the beginning of the pattern, in which any character may stand for a call id's."""
    return len(text) <= len(pattern) and all(
        p == c or (p == CALL_ID[0] and c.isalnum()) for p, c in zip(pattern, text, strict=False)
    )


def _call_id(pattern: str, text: str) -> str | None:
    place = pattern.find(CALL_ID)
    return None if place < 0 else text[place : place + len(CALL_ID)]
