"""Conversations as agents have them: a client that sends everything again each turn, and a model that calls tools.

The client never sends a message twice in the same form, and the model never writes in the form, or with the
tokens, that the template and the tokenizer would use.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from families import Family
from hostile import Request, addition, reference, removal, schema, system, text, tool, tool_result
from hypothesis import strategies as st

from commonweight.messages.response import OutputText, OutputToolUse
from commonweight.prompting import OutputParser, Prompt
from commonweight.prompting.formats import CALL_ID, NUMBER, ArgumentMarkup
from commonweight.prompting.parse.output import CallClosed, CallInput, CallOpened, Reasoning, Text
from commonweight.prompting.tokens.special_tokens import SpecialTokens

Body = dict[str, Any]

SEARCH = tool(
    description="Finds text.",
    input_schema=schema(
        {
            "q": {"type": "string"},
            "limit": {"type": "integer"},
            "paths": {"type": "array", "items": {"type": "string"}},
        },
        required=["q"],
    ),
)
TOUCH = tool(name="touch", input_schema=schema({}))
NEW = addition(tool(name="new", description="Just in.", input_schema=SEARCH["input_schema"]))
LATE = tool(
    name="late", description="Was found.", input_schema=schema({"q": {"type": "string"}}), defer_loading=True
)

WORDS = [
    *(
        "hello",
        "I see.",
        "x = {'a': 1}",
        "déjà vu",
        "日本 🙂",
        "if a < b:",
        "a\n\n  b",
        "<b>",
        "don't",
        "[1]",
        "«so»",
    ),
    *("<|im_end|>", "</think>", "<tool_call>", "[/INST]", "<|user|>", "Error: none"),
]
words = st.sampled_from(WORDS)
texts = st.lists(words, min_size=1, max_size=3).map(" ".join)
inputs = st.fixed_dictionaries(
    {"q": texts}, optional={"limit": st.integers(-5, 10**6), "paths": st.lists(texts, max_size=2)}
)


@dataclass(frozen=True)
class Turn:
    """What a client says, and what the model answers."""

    says: str | None
    """None: only what its tools answered, if any were called."""
    instructs: str | None
    """A system message after that."""
    results: str
    loads: bool
    reasoning: str
    text: str
    calls: tuple[tuple[str, Body], ...]
    changes: tuple[Body, ...] = ()
    """Changes of tools in the system message, each of which changes something."""


calls: st.SearchStrategy[tuple[str, Body]] = st.tuples(st.sampled_from(["search", "new"]), inputs) | st.just(
    ("touch", {})
)
changes = st.sampled_from(
    [(), (), (NEW,), (NEW, removal("touch")), (NEW, addition("touch")), (NEW, removal("new"))]
)
turns = st.builds(
    Turn,
    says=st.none() | texts,
    instructs=st.none() | st.none() | texts,
    results=texts,
    loads=st.booleans(),
    reasoning=st.just("") | texts,
    text=st.just("") | texts,
    calls=st.just(()) | st.lists(calls, min_size=1, max_size=3).map(tuple),
    changes=changes,
)
scripts = st.lists(turns, min_size=2, max_size=5)


@dataclass
class Client:
    """Keeps the conversation."""

    chance: Random
    has_tools: bool = True
    thinks: bool = False
    messages: list[Body] = field(default_factory=list)

    @property
    def waiting(self) -> list[str]:
        """Ids of the calls that have no result yet."""
        last = self.messages[-1] if self.messages else {"content": []}
        return [block["id"] for block in last["content"] if block["type"] == "tool_use"]

    def say(self, turn: Turn) -> None:
        """Add what the client says in a turn."""
        blocks: list[Body] = []
        for i, call in enumerate(self.waiting):
            answer = [text(turn.results), reference("late")] if turn.loads and i == 0 else turn.results
            blocks.append(tool_result(answer, tool_use_id=call, is_error=self.chance.random() < 0.2))
        self.chance.shuffle(blocks)  # tools are done when they are done
        if turn.says is not None or not blocks:
            # Never the same twice: templates that look for the latest message would find an earlier one, too.
            blocks.append(text(f"{turn.says or 'go on'} {len(self.messages)}"))
        self.messages.append({"role": "user", "content": blocks})
        said = [] if turn.instructs is None else [text(turn.instructs)]
        if said or turn.changes:
            # Each definition is another one, so that none changes nothing.
            self.messages.append(system([*said, *(self._renewed(change) for change in turn.changes)]))

    def _renewed(self, change: Body) -> Body:
        if change is not NEW:
            return change
        definition = NEW["tool"]["definition"]
        return addition({**definition, "description": f"{definition['description']} {len(self.messages)}"})

    def add_answer(self, reasoning: str, blocks: Sequence[OutputText | OutputToolUse]) -> None:
        """Add what the model answered."""
        thought = [{"type": "thinking", "thinking": reasoning, "signature": ""}] if reasoning else []
        content = [block.model_dump(exclude={"citations"}) for block in blocks]
        self.messages.append({"role": "assistant", "content": thought + content})

    def request(self, *, has_marks: bool = True) -> Request:
        """The whole conversation, in some form."""
        messages = [self._formed(message) for message in self.messages]
        instructions = [text("Be kind."), text("Be brief.")]
        if has_marks:
            places = [block for m in messages if isinstance(m["content"], list) for block in m["content"][-1:]]
            places = [block for block in places if block["type"] != "thinking"] + instructions
            for block in self.chance.sample(places, k=min(2, len(places))):
                block["cache_control"] = {"type": "ephemeral", "ttl": self.chance.choice(["5m", "1h"])}
        billing = text(f"x-anthropic-billing-header: cc_version=2; cch={self.chance.random()};")
        request: Request = {"model": "m", "system": [billing, *instructions], "messages": messages}
        if self.has_tools:
            request["tools"] = [SEARCH, {**TOUCH}, LATE]
        if has_marks and self.chance.random() < 0.3:
            request["cache_control"] = {"type": "ephemeral"}
        if has_marks and self.has_tools and self.chance.random() < 0.3:
            request["tools"][1]["cache_control"] = {"type": "ephemeral"}
        if self.thinks:
            request["thinking"] = {"type": "adaptive"}
        return request

    def _formed(self, message: Body) -> Body:
        content = [{**block} for block in message["content"]]
        is_one = len(content) == 1 and content[0]["type"] == "text"
        if is_one and self.chance.random() < 0.5:
            return {**message, "content": content[0]["text"]}
        return {**message, "content": content}


@dataclass(frozen=True)
class Model:
    """Answers a family's prompts by a script."""

    family: Family
    chance: Random

    def answer(self, prompt: Prompt, turn: Turn) -> tuple[list[int], str, list[OutputText | OutputToolUse]]:
        """Tokens that say what the turn's script says, as far as this prompt allows it; reasoning and blocks."""
        ids = self.tokens(prompt, turn)
        parser = OutputParser(self.family.tokenizer, prompt.parser_config)
        pieces = [piece for token_id in ids for piece in parser.feed(token_id)] + parser.flush()
        reasoning = ""
        blocks: list[OutputText | OutputToolUse] = []
        body = ""
        for piece in pieces:
            match piece:
                case Reasoning(more):
                    reasoning += more
                case Text(more):
                    if not (blocks and isinstance(blocks[-1], OutputText)):
                        blocks.append(OutputText())
                    blocks[-1].text += more  # type: ignore[union-attr]
                case CallOpened(name, call_id):
                    body = ""
                    blocks.append(OutputToolUse(id=self._id(call_id), name=name))
                case CallInput(more):
                    body += more
                case CallClosed():
                    assert isinstance(blocks[-1], OutputToolUse)
                    blocks[-1].input = json.loads(body)
        return ids, reasoning, blocks

    def tokens(self, prompt: Prompt, turn: Turn) -> list[int]:
        """What the model draws to say it."""
        return [token_id for part in self._said(prompt, turn) for token_id in self._drawn(part)]

    def _id(self, call_id: str | None) -> str:
        fresh = "toolu_" + "".join(self.chance.choices("abcdefgh01234567", k=24))
        return fresh if call_id is None else fresh[: -len(call_id)] + call_id

    def _said(self, prompt: Prompt, turn: Turn) -> Iterator[str | int]:
        """Text, and tokens where the family's markup has tokens of its own."""
        template, reading = self.family.renderer.template, prompt.parser_config
        family, thinking = template.format, template.thinking
        calls = tuple(call for call in turn.calls if call[0] in (reading.tools or ()))
        if family.takes_one_call:
            calls = calls[:1]
        text = turn.text or ("" if calls else "Well.")
        if calls and family.is_whole_answer:
            text = ""
        thinks = reading.is_thinking or (
            turn.reasoning and reading.thinking is not None and not reading.continues_text
        )
        if family.text_openings:
            if thinks and thinking:
                yield from self._markup(thinking.opening)
                yield turn.reasoning
                yield from self._markup(thinking.closing + family.glue)
            if text:
                yield from self._markup(family.text_openings[1 if calls else 0])
                yield text
                yield from self._markup("<|end|>" + family.glue if calls else "")
        else:
            if thinks and thinking:
                yield from self._markup("" if reading.is_thinking else thinking.opening)
                yield self._gap() + turn.reasoning + self._gap()
                yield from self._markup(thinking.closing)
                yield self._gap()
            yield text + (self._gap() if text and calls else "")
        if calls:
            yield from self._markup(family.opening)
        for number, (name, body) in enumerate(calls):
            call_id = "".join(self.chance.choices("abcXYZ012", k=9))
            before_input = family.before_input.replace(CALL_ID, call_id).replace(NUMBER, str(number))
            yield from self._markup((family.between if number else "") + family.before_name + name + before_input)
            yield from self._input(body, family.arguments)
            yield from self._markup(family.after_input.replace(CALL_ID, call_id))
        if calls:
            yield from self._markup(family.closing)

    def _input(self, body: Body, around: ArgumentMarkup | None) -> Iterator[str | int]:
        if around is None:
            spaced = self.chance.choice([(",", ":"), (", ", ": ")])
            yield json.dumps(body, ensure_ascii=self.chance.random() < 0.5, separators=spaced)
            return
        for key, value in body.items():
            yield from self._markup(around.before_key + key + around.before_value)
            yield value if isinstance(value, str) else json.dumps(value)
            yield from self._markup(around.after_value)

    def _gap(self) -> str:
        return self.chance.choice(["", "\n", "\n\n"])

    def _markup(self, markup: str) -> Iterator[str | int]:
        specials = self.family.tokenizer.special_tokens
        found = SpecialTokens(specials)
        done = 0
        for start in found.find_starts(markup):
            if start >= done:
                yield markup[done:start]
                done = start + found.match_length(markup, start)
                yield specials[markup[start:done]]
        yield markup[done:]

    def _drawn(self, part: str | int) -> Iterator[int]:
        if isinstance(part, int):
            yield part
            return
        tokenizer = self.family.tokenizer
        while part:
            size = self.chance.randint(1, 7)
            piece, part = part[:size], part[size:]
            ids = tokenizer.encode(piece, continues=True)
            if set(ids) & set(tokenizer.special_tokens.values()):
                ids = [i for letter in piece for i in tokenizer.encode(letter, continues=True)]
            yield from ids
