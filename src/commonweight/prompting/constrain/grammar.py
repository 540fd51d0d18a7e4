"""Grammar of a whole answer: reasoning within its budget, text, tool calls, JSON output and citations.

The grammar is in llguidance's dialect of Lark. Text is unconstrained until the model opens a tool call, which
follows the syntax of its format and the tool's schema.

Source: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from commonweight.prompting.constrain.arguments import Argument, Values, read_arguments
from commonweight.prompting.constrain.lark import MarkupWriter, make_regex_containing, quote_string
from commonweight.prompting.constrain.schema import BadSchemaError, Schema, make_json_grammar
from commonweight.prompting.formats import ArgumentMarkup, Tags, ToolCallFormat

CITATION_TAGS = Tags('<cite doc="', "</cite>")
"""Tags syntax a quote; the opening is followed by the document's number and ``">``."""

MAX_QUOTABLE_CHARACTERS = 50_000
"""Most characters of documents whose quotes the grammar constrains to substrings: it takes 0.2 s to compile, and
llguidance refuses twice as many. Quotes of further documents are unconstrained, and looked up once parsed."""

_TOKEN = "\ud800"
"""A special token in text for comparison: a lone surrogate, which no text of a request can hold."""

CHARACTERS_PER_TOKEN = 4
"""For budgets of reasoning with a closing tag that is no special token, which are counted in characters."""


@dataclass(frozen=True)
class AnswerRules:
    """Constraints on one answer."""

    tools: Mapping[str, Schema]
    """Input schemas, by name, of the tools that may be called."""
    must_call: bool = False
    may_call: bool = True
    """False: the prompt shows the tools, but the answer must not call any."""
    allows_parallel_calls: bool = True
    """The answer may have more than one call."""
    schema: Schema | None = None
    """JSON schema of the text."""
    thinking: Literal["begun", "possible", "over"] = "over"
    """Reasoning was opened in the prompt, may be opened in the answer, or is not allowed."""
    budget: int | None = None
    """Most tokens of reasoning."""
    quotable: tuple[str, ...] = ()
    """Texts of documents by their number; empty for those that must not be quoted."""
    continues_text: bool = False
    """The answer continues text at the end of the prompt."""
    tenant: str = ""
    """Cache key of compiled schemas, so that no tenant can measure which schemas another one sent."""


class GrammarWriter:
    """Writer of answer grammars for one model. Safe to use from several threads."""

    def __init__(self, family: ToolCallFormat, thinking: Tags | None, special_tokens: Mapping[str, int]) -> None:
        self._format = family
        self._thinking = thinking
        self._markup = MarkupWriter(special_tokens)

    def write(self, rules: AnswerRules) -> str | None:
        """The grammar of an answer under ``rules``; None if nothing constrains it.

        Raises:
            BadSchemaError: no answer can be constrained to one of the schemas.
        """
        thinking = self._thinking if rules.thinking != "over" else None
        constrains_text = rules.tools or rules.schema is not None or any(map(str.strip, rules.quotable))
        if not constrains_text and not (thinking and rules.budget) and not self._format.text_openings:
            return None
        return _Grammar(self._format, thinking, self._markup, rules).text()


class _Grammar:
    """Builder of one grammar."""

    def __init__(
        self, family: ToolCallFormat, thinking: Tags | None, markup: MarkupWriter, rules: AnswerRules
    ) -> None:
        self._format = family
        self._thinking = thinking
        self._markup = markup
        self._rules = rules
        self._lines = ["TEXT: /(.|\\n)*/"]

    def text(self) -> str:
        body = self._write_body()
        if self._thinking:
            body = f"{self._write_reasoning(self._thinking)} ({body})"
        rules = "\n".join([f"start: {body}", *self._lines, ""])
        # Upstream servers look for special tokens in literals, too, but force them without a look at the grammar,
        # which wants ordinary tokens there. Unforced, these are drawn.
        options = '{"no_forcing": true}' if self._markup.has_token(rules) else "{}"
        return f"%llguidance {options}\n{rules}"

    def _add(self, rule: str, definition: str) -> None:
        self._lines.append(f"{rule}: {definition}")

    def _write(self, text: str) -> str:
        return self._markup.write(text)

    def _add_through(self, rule: str, marker: str) -> None:
        """Add a rule for text up to and including the first occurrence of a marker."""
        before, token_and_after = self._markup.split(marker)
        if token_and_after:
            self._add(rule.upper(), f"TEXT {quote_string(before)}")
            self._add(rule, f"{rule.upper()} {token_and_after}")
        else:
            self._add(f"{rule}[lazy]", f"TEXT {quote_string(marker)}")

    def _write_reasoning(self, tags: Tags) -> str:
        budget = self._rules.budget
        closing = self._write(tags.closing)
        if self._markup.begins_with_token(tags.closing):
            self._add(f"reasoning[max_tokens={budget}]" if budget else "reasoning", "TEXT")
            self._add("reasoned", f"reasoning {closing}")
        else:
            reasoning = f"/(.|\\n){{0,{budget * CHARACTERS_PER_TOKEN}}}/" if budget else "TEXT"
            self._add("reasoned[lazy]", f"{reasoning} {closing}")
        glue = self._write(self._format.glue)
        if not glue:
            # Models write white space between their reasoning and what follows it.
            self._add("SPACE", "/[ \\t\\r\\n]+/")
            glue = "SPACE?"
        is_begun = self._rules.thinking == "begun"
        return f"reasoned {glue}" if is_begun else f"({self._write(tags.opening)} reasoned {glue})?"

    def _write_body(self) -> str:
        """The answer after the reasoning."""
        rules, family = self._rules, self._format
        # A call cannot follow text in formats where it must come first.
        is_late = rules.continues_text and (family.is_whole_answer or family.text_openings)
        calls = rules.tools and rules.may_call and not is_late
        if calls:
            self._add_calls()
        if calls and rules.must_call:
            return "opened calls_opened" if rules.continues_text else "calls"
        opening = "" if rules.continues_text else self._write("".join(family.text_openings[:1]))
        if rules.schema is not None:
            self._add("answer", f"{opening} {make_json_grammar(rules.schema, rules.tenant)}")
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
        """Add rules for ``text``, with citations if allowed, and ``quoted``: text that ends with a citation."""
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
        """Names of the terminals for text: at its beginning, and after it."""
        rules, family = self._rules, self._format
        if rules.tools and family.is_whole_answer and not rules.continues_text:
            # Text that begins like a call would be parsed as one.
            self._add("UNCALLED", "TEXT & ~/[{ \\t\\r\\n](.|\\n)*/")
            return "UNCALLED", "TEXT"
        if rules.tools and not rules.may_call and not self._markup.begins_with_token(family.trigger):
            self._add("UNCALLED", f"TEXT & ~{make_regex_containing(family.trigger)}")
            return "UNCALLED", "UNCALLED"
        return "TEXT", "TEXT"

    def _add_quotes(self) -> list[str]:
        """Add a rule for quotes of each document with any words; returns their names."""
        names = []
        room = MAX_QUOTABLE_CHARACTERS
        for i, text in enumerate(self._rules.quotable):
            if not text.strip():
                continue
            names.append(f"quote_{i}")
            # A quote with "<" could not be distinguished from its closing tag.
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
        """Add rules for ``calls``, and for text followed by calls: ``opened calls_opened``."""
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
        whole = make_json_grammar({**_close_schema(schema), "type": "object"}, self._rules.tenant)
        syntax = self._format.arguments
        if syntax is None:
            return whole
        before_key, before_value = self._write(syntax.before_key), self._write(syntax.before_value)
        named, others = read_arguments(schema)
        parts = []
        for i, (key, argument) in enumerate(named.items()):
            rule = f"argument_{tool}_{i}"
            self._add(
                rule,
                f"{before_key} {quote_string(key)} {before_value} {self._write_value(rule, argument, syntax)}",
            )
            parts.append(rule if argument.is_required else f"{rule}?")
        if others:
            rule = f"argument_{tool}"
            self._add(
                rule, f"{before_key} /[a-zA-Z0-9_.-]+/ {before_value} {self._write_value(rule, others, syntax)}"
            )
            parts.append(f"{rule}*")
        return " ".join(parts) or '""'

    def _write_value(self, rule: str, argument: Argument, syntax: ArgumentMarkup) -> str:
        """Term for an argument's value and the markup after it."""
        values = argument.values
        if "string" in values.open_kinds:
            self._add_through(f"{rule}_text", syntax.after_value)
            return f"{rule}_text"
        # The text after a value is part of its lexeme: llguidance reads the longest lexeme and never goes back, so
        # that "a" could not end where "a\n..." is another value and a line break follows either.
        ending, rest = self._markup.split(syntax.after_value)
        has_strings = "string" in values.kinds
        terms = []
        if has_strings or not values.open_kinds:
            terms += [quote_string(text + ending) for text in values.write(ending + _TOKEN * bool(rest))]
        if values.open_kinds:
            schema = argument.make_schema_of_open_kinds() if has_strings else argument.schema
            terms.append(f"{self._write_json(schema, values)} {quote_string(ending)}")
        return f"({' | '.join(terms)}) {rest}"

    def _write_json(self, schema: Schema, values: Values) -> str:
        try:
            return make_json_grammar(schema, self._rules.tenant)
        except BadSchemaError:  # a $ref into a part of the schema that is not passed on
            return make_json_grammar({"type": sorted(values.kinds - {"string"})})


def _close_schema(schema: Schema) -> Schema:
    """The schema of a tool's input, closed if it has properties and no keyword that allows others."""
    allows_others = schema.keys() & {
        "additionalProperties",
        "patternProperties",
        "$ref",
        "anyOf",
        "oneOf",
        "allOf",
    }
    return schema if allows_others or "properties" not in schema else {**schema, "additionalProperties": False}


def _json_parts(text: str) -> str:
    """Terms for JSON text, split like the grammar of a JSON schema, so that an answer can become either."""
    return " ".join(quote_string(part) for part in re.split(r'("[^"]*")', text) if part)
