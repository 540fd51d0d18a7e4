"""From engine events to one message's events, without an engine."""

from collections.abc import Iterator

import pytest

from commonweight.catalog.gguf import Gguf
from commonweight.catalog.locate import starter
from commonweight.engines.contract import Admitted, EngineEvent, Finish, Prefilled, Step, Timings
from commonweight.messages.events import MessageFold
from commonweight.messages.request import CountTokensRequest
from commonweight.messages.response import Message
from commonweight.prompting import OutputParser, Prompt, Renderer, Tokenizer
from commonweight.turn.answer import Answer

STOPPED, AT_LIMIT = (Finish(reason, Timings(0, 0, 0)) for reason in ("stop", "length"))


@pytest.fixture(scope="module")
def tokenizer() -> Iterator[Tokenizer]:
    path = starter()
    assert path is not None, "the starter extra is not installed"
    gguf = Gguf(path)
    yield Tokenizer(gguf)
    gguf.close()


def answered(
    tokenizer: Tokenizer, text: str, *ending: EngineEvent, stops: list[str] | None = None, plain: bool = False
) -> Message:
    """The message when the engine draws the text's tokens and then what ends it."""
    prompt = plain_prompt(tokenizer) if plain else Prompt([1, 2, 3], continues_text=False)
    answer = Answer("m", 3, OutputParser(tokenizer, prompt, stops or []), "model_context_window_exceeded")
    fold = MessageFold()
    for event in (Admitted(1), Prefilled(), *map(Step, tokenizer.encode(text)), *ending):
        for told in answer.take(event):
            fold.add(told)
        if answer.is_complete:
            return fold.message()
    raise AssertionError("the message did not end")


def plain_prompt(tokenizer: Tokenizer) -> Prompt:
    """A prompt for a model that has no chat template."""
    request = CountTokensRequest.model_validate({"model": "m", "messages": [{"role": "user", "content": "hi"}]})
    return Renderer(tokenizer, None).render(request)


def test_a_stop_token_ends_the_turn_and_is_counted_but_not_shown(tokenizer: Tokenizer) -> None:
    message = answered(tokenizer, "Fine.", Step(min(tokenizer.end_ids)), STOPPED)
    assert [block.text for block in message.content] == ["Fine."]
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert message.usage.output_tokens == len(tokenizer.encode("Fine.")) + 1
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (2, 1)


def test_a_limit_gives_its_reason_and_releases_what_was_held_back(tokenizer: Tokenizer) -> None:
    message = answered(tokenizer, "Fine. ST", AT_LIMIT, stops=["STOP"])
    assert [block.text for block in message.content] == ["Fine. ST"]
    assert message.stop_reason == "model_context_window_exceeded"


def test_a_stop_sequence_ends_it_at_once(tokenizer: Tokenizer) -> None:
    message = answered(tokenizer, "Fine. STOP and more", stops=["STOP"])
    assert [block.text for block in message.content] == ["Fine. "]
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "STOP")
    assert message.usage.output_tokens < len(tokenizer.encode("Fine. STOP and more"))


def test_silence_is_no_block(tokenizer: Tokenizer) -> None:
    message = answered(tokenizer, "", Step(min(tokenizer.end_ids)), STOPPED)
    assert message.content == []
    message = answered(tokenizer, "STOP", stops=["STOP"])
    assert (message.content, message.stop_reason) == ([], "stop_sequence")


def test_without_a_template_the_turn_ends_where_the_user_would_speak(tokenizer: Tokenizer) -> None:
    message = answered(tokenizer, "Fine.\n\nUser: And you?", plain=True)
    assert [block.text for block in message.content] == ["Fine."]
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    # With a template it is text like any other.
    message = answered(tokenizer, "Fine.\n\nUser: And you?", AT_LIMIT)
    assert [block.text for block in message.content] == ["Fine.\n\nUser: And you?"]
