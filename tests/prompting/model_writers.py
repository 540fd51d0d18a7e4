"""Writers of model output in each tool-call format: the text of an answer, and token ids that spell it."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import vocabularies
from llguidance import LLMatcher, LLTokenizer
from vocabularies import CONTROL, NORMAL, USER_DEFINED

from commonweight.engines.grammars import GrammarCompiler
from commonweight.prompting import OutputParser, Tokenizer
from commonweight.prompting.constrain.grammar import AnswerRules, GrammarWriter
from commonweight.prompting.formats import FAMILIES, GENERIC, Tags, ToolCallFormat, fill_placeholders
from commonweight.prompting.parse.output import (
    CallClosed,
    CallInput,
    CallOpened,
    ParserConfig,
    Piece,
    Quote,
    Reasoning,
    Text,
)
from commonweight.prompting.tokens.special_tokens import SpecialTokens

THINK = Tags("<think>", "</think>")

# What vocabularies know of each family's markup.
_TOKENS = {
    "harmony": ("<|channel|>", "<|message|>", "<|constrain|>", "<|start|>", "<|end|>", "<|call|>", "<|return|>"),
    "glm": ("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
    "glm-tight": ("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
    "qwen-coder": ("<tool_call>", "</tool_call>"),
    "seed": ("<seed:tool_call>", "</seed:tool_call>"),
    "minimax": ("<minimax:tool_call>", "</minimax:tool_call>"),
    "kimi": (
        *("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<|tool_call_begin|>"),
        *("<|tool_call_end|>", "<|tool_call_argument_begin|>"),
    ),
    "deepseek": (
        *("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>"),
        *("<｜tool▁call▁end｜>", "<｜tool▁sep｜>"),
    ),
    "deepseek-3.1": (
        *("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>"),
        *("<｜tool▁call▁end｜>", "<｜tool▁sep｜>"),
    ),
    "mistral": ("[TOOL_CALLS]",),
    "mistral-spaced": ("[TOOL_CALLS]",),
    "mistral-ids": ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
    "mistral-args": ("[TOOL_CALLS]", "[ARGS]"),
    "llama3": ("<|python_tag|>",),
    "hermes": ("<tool_call>", "</tool_call>"),
    "generic": (),
}
# Tokens that run over the ends of markup, of strings and of characters.
_PIECES = [
    *(
        '">',
        '"}',
        "}}",
        "}}\n",
        "}\n",
        ' {"',
        '{"',
        '": ',
        '": "',
        '", "',
        "\n\n",
        " \n",
        "</",
        "\n</",
        ">\n",
        "><",
    ),
    *(
        "}\n</",
        '"}}',
        "]}",
        "\n<",
        " <",
        "<a",
        'l>\n{"name": "get',
        "call>\n",
        "ter>\n",
        "r>\n</",
        "_call>",
        "_value>",
    ),
    *(
        "get",
        "_we",
        "ather",
        "ink",
        "ink>",
        "</th",
        "<tool",
        "cite",
        "<cite doc=",
        '0">',
        "te>",
        "the",
        "\\n",
        '\\"',
    ),
]


@dataclass(frozen=True)
class ModelWriter:
    """Writer of answers in one format with one vocabulary."""

    family: ToolCallFormat
    thinking: Tags
    tokenizer: Tokenizer
    name: str

    def __str__(self) -> str:
        return self.name

    @property
    def specials(self) -> Mapping[str, int]:
        """The vocabulary's special tokens."""
        return self.tokenizer.special_tokens

    def is_text(self, markup: str) -> bool:
        """Whether text can be this markup."""
        return next(SpecialTokens(self.specials).find_starts(markup), None) is None

    def grammar(self, rules: AnswerRules) -> str:
        """The grammar of an answer under the rules."""
        grammar = GrammarWriter(self.family, self.thinking, self.specials).write(rules)
        assert grammar is not None
        return grammar

    def guide(self, rules: AnswerRules) -> "Guide":
        """The grammar of an answer under the rules, to follow."""
        return Guide(self, self.grammar(rules))

    def guide_of(self, lines: str) -> "Guide":
        """A grammar of these lines, to follow."""
        return Guide(self, f"%llguidance {{}}\n{lines}")

    def draw(self, rules: AnswerRules, random: Random) -> list[int]:
        """A random answer under the rules."""
        return draw_tokens(self.tokenizer, self.grammar(rules), random)

    def parser(self, rules: AnswerRules, stops: Sequence[str] = ()) -> OutputParser:
        """The parser for an answer under the rules."""
        config = ParserConfig.from_rules(rules, self.family, self.thinking)
        return OutputParser(self.tokenizer, config, stops)

    def answer(
        self,
        reasoning: str | None = None,
        text: str = "",
        calls: Sequence[tuple[str, Mapping[str, Any]]] = (),
        *,
        is_begun: bool = False,
        tags_are_text: bool = False,
    ) -> "Answer":
        """What the model writes. ``is_begun``: the prompt began the reasoning."""
        family = self.family
        answer = Answer(self)
        if reasoning is not None:
            answer.markup("" if is_begun else self.thinking.opening).text(reasoning).markup(self.thinking.closing)
            if family.glue:
                answer.markup(family.glue)
            elif not tags_are_text:
                answer.text("\n\n")
        if family.text_openings and (text or not calls):
            answer.markup(family.text_openings[1 if calls else 0])
        answer.text(text)
        if text and calls and family.text_openings:
            answer.markup(family.after_text + family.glue)
        answer.markup(family.opening if calls else "")
        for i, (name, arguments) in enumerate(calls):
            answer.markup(family.between if i else "")
            answer.markup(fill_placeholders(family.before_name) + name + fill_placeholders(family.before_input))
            answer.input(arguments).markup(fill_placeholders(family.after_input))
        return answer.markup(family.closing if calls else "")


class Answer:
    """Output of a model: markup, with its special tokens, and text that may look like it."""

    def __init__(self, writer: ModelWriter) -> None:
        self._writer = writer
        self._parts: list[tuple[str, bool]] = []

    def __str__(self) -> str:
        return "".join(text for text, _ in self._parts)

    def markup(self, text: str) -> "Answer":
        """Go on with text of the format."""
        self._parts.append((text, True))
        return self

    def text(self, text: str) -> "Answer":
        """Go on with text of the model's own."""
        self._parts.append((text, False))
        return self

    def input(self, arguments: Mapping[str, Any]) -> "Answer":
        """Go on with the input of a call."""
        around = self._writer.family.arguments
        if around is None:
            return self.text(as_json(arguments))
        for key, value in arguments.items():
            self.markup(around.before_key).text(key).markup(around.before_value)
            self.text(value if isinstance(value, str) else as_json(value)).markup(around.after_value)
        return self

    def tokens(self, random: Random | None = None) -> list[int]:
        """Tokens that spell it: bytes, or any that fit."""
        return [token for text, is_markup in self._merged() for token in self._spelled(text, is_markup, random)]

    def _merged(self) -> Iterator[tuple[str, bool]]:
        # Ordinary tokens may run over the ends of what is no special token.
        specials = SpecialTokens(self._writer.specials)
        plain = ""
        for text, is_markup in self._parts:
            done = 0
            for start in specials.find_starts(text) if is_markup else ():
                if start >= done:
                    yield plain + text[done:start], False
                    done = start + specials.match_length(text, start)
                    yield text[start:done], True
                    plain = ""
            plain += text[done:]
        yield plain, False

    def _spelled(self, text: str, is_special: bool, random: Random | None) -> Iterator[int]:
        if is_special:
            yield self._writer.specials[text]
            return
        data = text.encode()
        pieces = _pieces(self._writer.tokenizer)
        place = 0
        while place < len(data):
            lengths = [n for n in range(1, 20) if data[place : place + n] in pieces]
            length = random.choice(lengths) if random else 1
            yield pieces[data[place : place + length]]
            place += length


class Guide:
    """Matcher of tokens against a grammar."""

    def __init__(self, writer: ModelWriter, grammar: str) -> None:
        self._matcher = LLMatcher(grammar_tokenizer(writer.tokenizer), grammar)
        assert not self._matcher.is_error(), f"{self._matcher.get_error()}\n{grammar}"

    def follow(self, tokens: Iterable[int]) -> int:
        """How many of the tokens may follow, one after the other."""
        count = 0
        for token in tokens:
            if self._matcher.try_consume_tokens([token]) != 1:
                break
            count += 1
        return count

    def accepts(self, tokens: Sequence[int]) -> bool:
        """Whether these tokens may follow, and end the answer."""
        return self.follow(tokens) == len(tokens) and self.may_end

    @property
    def may_end(self) -> bool:
        """Whether the answer can end here."""
        return bool(self._matcher.is_accepting())

    def allowed(self) -> set[int]:
        """The tokens that may come next."""
        bits = self._matcher.compute_bitmask()
        return {i for i in range(8 * len(bits)) if bits[i // 8] >> i % 8 & 1}


@dataclass
class ParsedAnswer:
    """The pieces of an answer, joined."""

    reasoning: str
    text: str
    calls: list[tuple[str, str, bool]]
    """Name, input and whether it is whole."""
    quotes: list[tuple[int, str]]

    @property
    def whole_calls(self) -> list[tuple[str, Any]]:
        """Calls with their inputs, all of which are whole."""
        assert all(is_whole for _, _, is_whole in self.calls)
        return [(name, json.loads(text)) for name, text, _ in self.calls]


def join_pieces(pieces: Iterable[Piece]) -> ParsedAnswer:
    """Join pieces, and check their order."""
    answer = ParsedAnswer("", "", [], [])
    is_open = False
    for piece in pieces:
        assert is_open == isinstance(piece, CallInput | CallClosed), piece
        match piece:
            case Text(text):
                assert text
                answer.text += text
            case Reasoning(text):
                assert text
                answer.reasoning += text
            case CallOpened(name):
                answer.calls.append((name, "", False))
                is_open = True
            case CallInput(text):
                assert text
                name, before, _ = answer.calls[-1]
                answer.calls[-1] = (name, before + text, False)
            case CallClosed():
                answer.calls[-1] = (*answer.calls[-1][:2], True)
                is_open = False
            case Quote(document, text):
                answer.quotes.append((document, text))
    return answer


def read(parser: OutputParser, tokens: Iterable[int], *, is_cut: bool = False) -> ParsedAnswer:
    """Parse tokens to the end of the answer."""
    return join_pieces(
        [*(piece for token in tokens for piece in parser.feed(token)), *parser.flush(is_cut=is_cut)]
    )


def as_json(value: object) -> str:
    """JSON as models write it."""
    return json.dumps(value, ensure_ascii=False)


def vocabulary(*controls: str, user_defined: Sequence[str] = ()) -> Tokenizer:
    """A byte-level vocabulary with these special tokens."""
    letters = dict(enumerate(_letters()))
    ordinary = [*letters.values(), *("".join(letters[byte] for byte in piece.encode()) for piece in _PIECES)]
    tokens = [
        *((piece, NORMAL) for piece in ordinary),
        *((text, CONTROL) for text in ("<|endoftext|>", "<|im_end|>", *controls)),
        *((text, USER_DEFINED) for text in user_defined),
    ]
    return vocabularies._tokenizer("gpt2", tokens, bos="<|endoftext|>", eos="<|im_end|>", pre="qwen2")


def draw_tokens(tokenizer: Tokenizer, grammar: str, random: Random) -> list[int]:
    """Random tokens under a grammar, drawn as the engine draws, without the end."""
    end = tokenizer.eos_id
    assert end is not None
    guide = _grammar_compiler(tokenizer).create_matcher(grammar, frozenset([end]), "")
    tokens: list[int] = []
    while not tokens or tokens[-1] != end:
        tokens.append(guide.sample_token(lambda ids: end if ids is None else int(random.choice(ids))))
        assert len(tokens) < 1000
    return tokens[:-1]


def grammar_tokenizer(tokenizer: Tokenizer) -> LLTokenizer:
    """A vocabulary as the engine's grammars see it: no token of it is their end."""
    return _grammar_compiler(tokenizer).tokenizer


@cache
def _grammar_compiler(tokenizer: Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer._vocab)


@cache
def _pieces(tokenizer: Tokenizer) -> dict[bytes, int]:
    special = set(tokenizer.special_tokens.values())
    return {tokenizer.decode(i): i for i in range(tokenizer.size) if i not in special}


@cache
def _make_writer(family: ToolCallFormat, *, has_tokens: bool) -> ModelWriter:
    thinking = family.thinking or (Tags("[THINK]", "[/THINK]") if "mistral" in family.name else THINK)
    own = family.thinking is not None
    thoughts = () if own else (thinking.opening, thinking.closing)
    if not has_tokens:
        return ModelWriter(family, thinking, _plain_vocabulary(), f"{family.name}-in-text")
    tokens = (*_TOKENS[family.name], *thoughts)
    # Files declare such tags either way; square brackets are always control tokens.
    is_tag = family.thinking is None and all(token[0] == "<" for token in tokens)
    tokenizer = vocabulary(user_defined=tokens) if is_tag else vocabulary(*tokens)
    return ModelWriter(family, thinking, tokenizer, family.name)


@cache
def _plain_vocabulary() -> Tokenizer:
    return vocabulary()


def _letters() -> list[str]:
    return vocabularies._byte_letters()


WRITERS = [
    *(_make_writer(family, has_tokens=True) for family in FAMILIES),
    *(_make_writer(family, has_tokens=False) for family in (*FAMILIES, GENERIC)),
]
"""Each family with the special tokens of its markup, and with a vocabulary that has none."""


def writer_for(name: str) -> ModelWriter:
    """The writer with a name."""
    return next(writer for writer in WRITERS if writer.name == name)
