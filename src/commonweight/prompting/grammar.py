"""What an answer may look like, as one grammar: reasoning within its budget, text, calls of the tools, quotes.

The grammar is in llguidance's dialect of Lark. Text stays free until the model opens a call; from there on every
token is one of the call's syntax and of the tool's schema.

Source: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from commonweight.prompting.formats import CALL_ID, Arguments, Format, Tags
from commonweight.prompting.quoting import Specials
from commonweight.prompting.schema import Schema, json_grammar

_ANY = "/(.|\\n)*/"


@dataclass(frozen=True)
class Rules:
    """What one answer is held to."""

    tools: Mapping[str, Schema]
    """By name: those that may be called."""
    must_call: bool = False
    may_call: bool = True
    """False: the tools are known to the model, but not to be called now."""
    is_parallel: bool = True
    """More than one call may be made."""
    schema: Schema | None = None
    """Of the text, if it is to be JSON."""
    thinking: Literal["begun", "possible", "over"] = "over"
    budget: int | None = None
    """Tokens of reasoning at most."""
    quotable: tuple[str, ...] = ()
    """Documents that the answer may quote, by their number."""


class GrammarWriter:
    """Writes grammars for one model."""

    def __init__(self, family: Format, thinking: Tags | None, specials: Mapping[str, int]) -> None:
        self._format = family
        self._thinking = thinking
        self._ids = specials
        self._specials = Specials(specials)

    def write(self, rules: Rules) -> str | None:
        """The grammar, or None if any answer is fine.

        Raises:
            BadSchemaError: an answer cannot be held to one of the schemas.
        """
        calls = bool(rules.tools) and rules.may_call
        has_thinking = rules.thinking != "over" and self._thinking is not None
        is_free = not rules.tools and rules.schema is None and not rules.quotable
        if is_free and not (has_thinking and rules.budget) and not self._format.text_openings:
            return None
        lines = ["%llguidance {}", f"TEXT: {_ANY}"]
        head = self._think(rules, lines) if has_thinking else ""
        body = self._body(rules, calls, lines)
        lines.insert(1, f"start: {head} ({body})" if head else f"start: {body}")
        return "\n".join(lines) + "\n"

    def _think(self, rules: Rules, lines: list[str]) -> str:
        assert self._thinking is not None
        opening, closing = self._literal(self._thinking.opening), self._literal(self._thinking.closing)
        glue = self._literal(self._format.glue)
        # Where reasoning is followed by a call at once, there may be space between.
        space = "" if self._format.text_openings else "SPACE?"
        if space:
            lines.append("SPACE: /[ \\n]+/")
        budget = f"[max_tokens={rules.budget}]" if rules.budget else ""
        if closing.startswith("<["):
            lines += [f"reasoning{budget}: TEXT", f"reasoned: reasoning {closing} {glue} {space}"]
        else:
            # Text ends where the closing tag is complete; no budget can be kept then.
            lines += [f"reasoning[lazy]: TEXT {closing}", f"reasoned: reasoning {glue} {space}"]
        if rules.thinking == "begun":
            return "reasoned"
        lines.append(f"thinking: {opening} reasoned")
        # Text could be the tag as well, where it is no token of its own.
        return "thinking?" if opening.startswith("<[") else ""

    def _body(self, rules: Rules, calls: bool, lines: list[str]) -> str:
        options = []
        if calls:
            self._calls(rules, lines)
            if rules.must_call:
                return "calls"
        if rules.schema is not None:
            lines.append(f"answer: {json_grammar(rules.schema)}")
            options.append(f"{self._text_opening()} answer")
            return " | ".join([*options, "calls"] if calls else options)
        quotes = self._quotes(rules, lines)
        if self._format.text_openings:
            preamble = f"{self._literal(self._format.text_openings[1])} TEXT {self._literal('<|end|>')}"
            glue = self._literal(self._format.glue)
            options.append(f"{self._text_opening()} {quotes} TEXT")
            return " | ".join([*options, f"({preamble} {glue})? calls"] if calls else options)
        if calls and self._format.is_whole_answer:
            lines.append("UNCALLED: /[^{](.|\\n)*/")
            return "calls | UNCALLED?"
        if calls:
            return f"{quotes} (opened calls_opened | TEXT)"
        if rules.tools and not self._literal(self._format.trigger).startswith("<["):
            trigger = _regex(self._format.trigger)
            lines.append(f"UNCALLED: {_ANY} & ~/(.|\\n)*{trigger}(.|\\n)*/")
            return "UNCALLED"
        return f"{quotes} TEXT"

    def _text_opening(self) -> str:
        return self._literal(self._format.text_openings[0]) if self._format.text_openings else ""

    def _quotes(self, rules: Rules, lines: list[str]) -> str:
        if not rules.quotable:
            return ""
        for i, text in enumerate(rules.quotable):
            source = json.dumps({"substring_chars": text}, ensure_ascii=False)
            number, closing = json.dumps(f'{i}">'), json.dumps(QUOTES.closing)
            lines += [f"quote_{i}: {number} QUOTE_{i} {closing}", f"QUOTE_{i}: %regex {source}"]
        lines.append(f"quoting[lazy]: TEXT {json.dumps(QUOTES.opening)}")
        lines.append("quoted: quoting (" + " | ".join(f"quote_{i}" for i in range(len(rules.quotable))) + ")")
        return "quoted*"

    def _calls(self, rules: Rules, lines: list[str]) -> None:
        family = self._format
        head = family.opening + family.before_name
        trigger = self._literal(family.trigger)
        assert head.startswith(family.trigger)
        first: list[str] = []
        more: list[str] = []
        for i, (name, schema) in enumerate(rules.tools.items()):
            tail = f"input_{i} {self._literal(family.after_input)}"
            lines.append(f"input_{i}: {self._input(i, schema, lines)}")
            first.append(f"{self._literal(head[len(family.trigger) :] + name + family.before_input)} {tail}")
            more.append(
                f"{self._literal(family.between + family.before_name + name + family.before_input)} {tail}"
            )
        rest = "(" + " | ".join(more) + ")*" if rules.is_parallel and not family.takes_one_call else ""
        lines.append(f"calls_opened: ({' | '.join(first)}) {rest} {self._literal(family.closing)}")
        lines.append(f"calls: {trigger} calls_opened")
        lazily = "" if trigger.startswith("<[") else "[lazy]"
        lines.append(f"opened{lazily}: TEXT {trigger}")

    def _input(self, tool: int, schema: Schema, lines: list[str]) -> str:
        around = self._format.arguments
        if around is None:
            return json_grammar(schema)
        required = set(schema.get("required", ()))
        parts = []
        for i, (key, value) in enumerate(_properties(schema).items()):
            rule = f"argument_{tool}_{i}"
            lines.append(f"{rule}: {self._argument(key, value, schema, around, rule, lines)}")
            parts.append(rule if key in required else f"{rule}?")
        return " ".join(parts) or '""'

    def _argument(
        self,
        key: str,
        schema: Any,
        root: Schema,
        around: Arguments,
        rule: str,
        lines: list[str],
    ) -> str:
        opening = self._literal(around.before_key + key + around.before_value)
        closing = self._literal(around.after_value)
        if not is_text(schema):
            whole = {**schema, **{k: root[k] for k in ("$defs", "definitions") if k in root}}
            return f"{opening} {json_grammar(whole)} {closing}"
        if "enum" in schema:
            return f"{opening} ({' | '.join(self._literal(str(choice)) for choice in schema['enum'])}) {closing}"
        if closing.startswith("<["):
            return f"{opening} TEXT {closing}"
        lines.append(f"{rule}_text[lazy]: TEXT {closing}")
        return f"{opening} {rule}_text"

    def _literal(self, text: str) -> str:
        """Text as terms of the grammar: special tokens by id, and strings."""
        terms: list[str] = []
        done = 0
        for start in self._specials.beginnings(text):
            if start >= done:
                terms += _strings(text[done:start])
                done = start + self._specials.at(text, start)
                terms.append(f"<[{self._ids[text[start:done]]}]>")
        return " ".join(terms + _strings(text[done:]))


QUOTES = Tags('<cite doc="', "</cite>")
"""Around a quote; between the opening and the quote stand the document's number and ``">``."""


def is_text(schema: Any) -> bool:  # noqa: ANN401 - any JSON may stand for a property's schema
    """Whether an argument is written as it is, not as JSON."""
    return isinstance(schema, dict) and schema.get("type") == "string"


def _properties(schema: Schema) -> Mapping[str, Any]:
    found = schema.get("properties", {})
    return found if isinstance(found, dict) else {}


def _strings(text: str) -> list[str]:
    before, found, after = text.partition(CALL_ID)
    terms = [json.dumps(before, ensure_ascii=False)] if before else []
    return [*terms, "/[a-zA-Z0-9]{9}/", *_strings(after)] if found else terms


def _regex(text: str) -> str:
    return "".join(f"\\{c}" if c in r"\/.*+?()[]{}|^$&~" else c for c in text)
