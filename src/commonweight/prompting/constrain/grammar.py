"""What an answer may look like, as one grammar: reasoning within its budget, text, calls of the tools, quotes.

The grammar is in llguidance's dialect of Lark. Text stays free until the model opens a call; from there on every
token is one of the call's syntax and of the tool's schema.

Source: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from commonweight.prompting.constrain.arguments import Argument, read_arguments
from commonweight.prompting.constrain.lark import MarkupWriter, quote_string, regex_containing
from commonweight.prompting.constrain.schema import BadSchemaError, Schema, json_grammar
from commonweight.prompting.formats import Arguments, Format, Tags

CITATION_TAGS = Tags('<cite doc="', "</cite>")
"""Around a quote; between the opening and the quote stand the document's number and ``">``."""

MAX_QUOTABLE_CHARACTERS = 50_000
"""Characters of documents to whose very words quotes are held: their grammar takes 0.2 s to prepare, and
llguidance refuses twice as many. Other quotes are free, and looked up when they are told."""

CHARACTERS_PER_TOKEN = 4
"""For budgets of reasoning, where what ends it is no token: then only characters can be counted."""


@dataclass(frozen=True)
class AnswerRules:
    """What one answer is held to."""

    tools: Mapping[str, Schema]
    """By name: those that may be called."""
    must_call: bool = False
    may_call: bool = True
    """False: the tools are known to the model, but not to be called now."""
    allows_parallel_calls: bool = True
    """More than one call may be made."""
    schema: Schema | None = None
    """Of the text, if it is to be JSON."""
    thinking: Literal["begun", "possible", "over"] = "over"
    budget: int | None = None
    """Tokens of reasoning at most."""
    quotable: tuple[str, ...] = ()
    """Documents by their number. Those that the answer may not quote are empty."""
    continues_text: bool = False
    """The answer goes on with text that the prompt ends with."""
    tenant: str = ""
    """Who alone may learn, by the time it takes, which schemas were seen before."""


class GrammarWriter:
    """Writes grammars for one model. Safe to use from several threads."""

    def __init__(self, family: Format, thinking: Tags | None, specials: Mapping[str, int]) -> None:
        self._format = family
        self._thinking = thinking
        self._literals = MarkupWriter(specials)

    def write(self, rules: AnswerRules) -> str | None:
        """The grammar, or None if any answer is fine.

        Raises:
            BadSchemaError: an answer cannot be held to one of the schemas.
        """
        thinking = self._thinking if rules.thinking != "over" else None
        holds_text = rules.tools or rules.schema is not None or any(map(str.strip, rules.quotable))
        if not holds_text and not (thinking and rules.budget) and not self._format.text_openings:
            return None
        return _Grammar(self._format, thinking, self._literals, rules).text()


class _Grammar:
    """One grammar while it is written."""

    def __init__(self, family: Format, thinking: Tags | None, literals: MarkupWriter, rules: AnswerRules) -> None:
        self._format = family
        self._thinking = thinking
        self._literals = literals
        self._rules = rules
        self._lines = ["TEXT: /(.|\\n)*/"]

    def text(self) -> str:
        body = self._write_body()
        if self._thinking:
            body = f"{self._write_reasoning(self._thinking)} ({body})"
        return "\n".join(["%llguidance {}", f"start: {body}", *self._lines, ""])

    def _add(self, rule: str, definition: str) -> None:
        self._lines.append(f"{rule}: {definition}")

    def _write(self, text: str) -> str:
        return self._literals.write(text)

    def _add_through(self, rule: str, marker: str) -> None:
        """Text up to a marker and with it. It is the first, since text does not hold the marker."""
        before, token_and_after = self._literals.split(marker)
        if token_and_after:
            self._add(rule.upper(), f"TEXT {quote_string(before)}")
            self._add(rule, f"{rule.upper()} {token_and_after}")
        else:
            self._add(f"{rule}[lazy]", f"TEXT {quote_string(marker)}")

    def _write_reasoning(self, tags: Tags) -> str:
        budget = self._rules.budget
        closing = self._write(tags.closing)
        if self._literals.begins_with_token(tags.closing):
            self._add(f"reasoning[max_tokens={budget}]" if budget else "reasoning", "TEXT")
            self._add("reasoned", f"reasoning {closing}")
        else:
            reasoning = f"/(.|\\n){{0,{budget * CHARACTERS_PER_TOKEN}}}/" if budget else "TEXT"
            self._add("reasoned[lazy]", f"{reasoning} {closing}")
        glue = self._write(self._format.glue)
        if not glue:
            # Models put space between their reasoning and what follows, whatever that is.
            self._add("SPACE", "/[ \\t\\r\\n]+/")
            glue = "SPACE?"
        begun = self._rules.thinking == "begun"
        return f"reasoned {glue}" if begun else f"({self._write(tags.opening)} reasoned {glue})?"

    def _write_body(self) -> str:
        """All but the reasoning."""
        rules, family = self._rules, self._format
        # What goes on with text can begin no call where that needs a beginning of its own.
        is_late = rules.continues_text and (family.is_whole_answer or family.text_openings)
        calls = rules.tools and rules.may_call and not is_late
        if calls:
            self._add_calls()
        if calls and rules.must_call:
            return "opened calls_opened" if rules.continues_text else "calls"
        opening = "" if rules.continues_text else self._write("".join(family.text_openings[:1]))
        if rules.schema is not None:
            self._add("answer", f"{opening} {json_grammar(rules.schema, rules.tenant)}")
            return "answer | calls" if calls else "answer"
        self._add_text()
        if not calls:
            return f"{opening} text"
        if family.text_openings:
            self._add_through("before_calls", family.after_text)
            before = f"{self._write(family.text_openings[1])} before_calls {self._write(family.glue)}"
            return f"{opening} text | ({before})? calls"
        return "text | calls" if family.is_whole_answer else "text | quoted* opened calls_opened"

    # Text

    def _add_text(self) -> None:
        """Rules for ``text``, with quotes if there may be some, and for what of it ends with one: ``quoted``."""
        first, rest = self._text_terminals()
        quote = " | ".join(self._add_quotes())
        opening = quote_string(CITATION_TAGS.opening)
        self._add("quoting[lazy]", f"{rest} {opening}")
        self._add("quoted", f"quoting ({quote})" if quote else '""')
        if not quote:
            self._add("text", first)
        elif first == rest:
            self._add("text", f"quoted* {rest}")
        else:
            self._add("beginning[lazy]", f"{first} {opening}")
            self._add("text", f"{first} | beginning ({quote}) quoted* {rest}")

    def _text_terminals(self) -> tuple[str, str]:
        """The terminals for text: at its beginning, and further on."""
        rules, family = self._rules, self._format
        if rules.tools and family.is_whole_answer and not rules.continues_text:
            # Text that begins like a call could not become one any more.
            self._add("UNCALLED", "TEXT & ~/[{ \\t\\r\\n](.|\\n)*/")
            return "UNCALLED", "TEXT"
        if rules.tools and not rules.may_call and not self._literals.begins_with_token(family.trigger):
            self._add("UNCALLED", f"TEXT & ~{regex_containing(family.trigger)}")
            return "UNCALLED", "UNCALLED"
        return "TEXT", "TEXT"

    def _add_quotes(self) -> list[str]:
        """The rules for a quote of each document that has any words."""
        names = []
        room = MAX_QUOTABLE_CHARACTERS
        for i, text in enumerate(self._rules.quotable):
            if not text.strip():
                continue
            names.append(f"quote_{i}")
            # With "<" in it, a quote could not be told from what closes it.
            words = "/[^<]*[^<\\s][^<]*/"
            room -= len(text)
            if room >= 0:
                self._add(f"DOCUMENT_{i}", f"%regex {json.dumps({'substring_chars': text}, ensure_ascii=False)}")
                words += f" & DOCUMENT_{i}"
            self._add(f"QUOTE_{i}", words)
            number = quote_string(f'{i}">')
            self._add(f"quote_{i}", f"{number} QUOTE_{i} {quote_string(CITATION_TAGS.closing)}")
        return names

    # Calls

    def _add_calls(self) -> None:
        """Rules for ``calls``, and for the same after text: ``opened calls_opened``."""
        family = self._format
        write, trigger = self._write, family.trigger
        if family.is_whole_answer:
            write, trigger = _json_parts, ""
        first, more = [], []
        for i, (name, schema) in enumerate(self._rules.tools.items()):
            self._add(f"input_{i}", f"{self._write_input(i, schema)} {write(family.after_input)}")
            head = family.before_name + name + family.before_input
            first.append(f"{write((family.opening + head).removeprefix(trigger))} input_{i}")
            more.append(f"{write(family.between + head)} input_{i}")
        rest = f"({' | '.join(more)})*" if self._rules.allows_parallel_calls and not family.takes_one_call else ""
        self._add("calls_opened", f"({' | '.join(first)}) {rest} {write(family.closing)}")
        self._add("calls", f"{write(trigger)} calls_opened")
        if trigger:
            self._add_through("opened", trigger)

    def _write_input(self, tool: int, schema: Schema) -> str:
        whole = json_grammar({**_close_schema(schema), "type": "object"}, self._rules.tenant)
        around = self._format.arguments
        if around is None:
            return whole
        before_key, before_value = self._write(around.before_key), self._write(around.before_value)
        named, others = read_arguments(schema)
        parts = []
        for i, (key, argument) in enumerate(named.items()):
            rule = f"argument_{tool}_{i}"
            self._add(
                rule,
                f"{before_key} {quote_string(key)} {before_value} {self._write_value(rule, argument, around)}",
            )
            parts.append(rule if argument.is_required else f"{rule}?")
        if others:
            rule = f"argument_{tool}"
            self._add(
                rule, f"{before_key} /[a-zA-Z0-9_.-]+/ {before_value} {self._write_value(rule, others, around)}"
            )
            parts.append(f"{rule}*")
        return " ".join(parts) or '""'

    def _write_value(self, rule: str, argument: Argument, around: Arguments) -> str:
        """An argument's value and what stands after it."""
        closing = self._write(around.after_value)
        if argument.choices is not None:
            choices = (c if isinstance(c, str) else json.dumps(c, ensure_ascii=False) for c in argument.choices)
            return f"({' | '.join(map(quote_string, choices))}) {closing}"
        if "string" in argument.kinds:
            self._add_through(f"{rule}_text", around.after_value)
            return f"{rule}_text"
        try:
            return f"{json_grammar(argument.schema, self._rules.tenant)} {closing}"
        except BadSchemaError:  # it refers to a place that is not here
            return f"{json_grammar({'type': sorted(argument.kinds)})} {closing}"


def _close_schema(schema: Schema) -> Schema:
    """The schema of a tool's input. One that names properties and says nothing of others means just these."""
    says_more = schema.keys() & {"additionalProperties", "patternProperties", "$ref", "anyOf", "oneOf", "allOf"}
    return schema if says_more or "properties" not in schema else {**schema, "additionalProperties": False}


def _json_parts(text: str) -> str:
    """JSON cut up as in the grammar of a schema: an answer may become either."""
    return " ".join(quote_string(part) for part in re.split(r'("[^"]*")', text) if part)
