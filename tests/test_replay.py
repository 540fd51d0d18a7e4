"""The scripted engine keeps the contract, or whatever is tested with it proves nothing."""

import anthropic
import pytest

from replay import Served, replaying

GREETING: list[anthropic.types.MessageParam] = [{"role": "user", "content": "Say hello."}]


def client(served: Served) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=served.url, api_key=served.key, max_retries=0)


def test_a_script_is_said_text_by_text_and_then_it_is_over() -> None:
    with replaying(["Hello.", "Grüße 😀<|im_end|>"]) as served, client(served) as asking:
        for words in ("Hello.", "Grüße 😀"):
            message = asking.messages.create(model="any", max_tokens=50, messages=GREETING)
            assert [block.type == "text" and block.text for block in message.content] == [words]
            assert message.stop_reason == "end_turn"
        with pytest.raises(anthropic.InternalServerError, match="no text for job 3"):
            asking.messages.create(model="any", max_tokens=50, messages=GREETING)


def test_a_script_may_depend_on_the_prompt_which_shows_control_tokens_by_name() -> None:
    with replaying(lambda prompt: f"{prompt.count('<|im_start|>')} turns") as served, client(served) as asking:
        message = asking.messages.create(model="any", max_tokens=50, system="Count.", messages=GREETING)
        assert [block.type == "text" and block.text for block in message.content] == ["3 turns"]
    [prompt] = served.engine.prompts
    assert prompt.startswith("<|im_start|>system\nCount.<|im_end|>\n<|im_start|>user\nSay hello.<|im_end|>\n")


def test_limits_hold_and_what_was_read_before_is_cached() -> None:
    with replaying(["one two three four five", "six"]) as served, client(served) as asking:
        first = asking.messages.create(model="any", max_tokens=2, messages=GREETING)
        assert (first.stop_reason, first.usage.output_tokens) == ("max_tokens", 2)
        assert first.usage.cache_read_input_tokens == 0
        second = asking.messages.create(model="any", max_tokens=50, messages=GREETING)
        # One token is always computed, or there would be nothing to draw the next one from.
        assert (second.usage.input_tokens, second.usage.cache_read_input_tokens) == (
            1,
            first.usage.input_tokens - 1,
        )
