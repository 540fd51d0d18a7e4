"""An application made with LiteLLM, told as JSON on standard output."""

import json
from typing import Any

import litellm  # type: ignore[import-not-found]

ASKED: dict[str, Any] = {
    "model": "anthropic/any-name",
    "max_tokens": 200,
    "temperature": 0.5,
    "messages": [{"role": "system", "content": "You are terse."}, {"role": "user", "content": "Say hello."}],
}
LIGHT = {
    "type": "function",
    "function": {
        "name": "switch_light",
        "description": "Switch a light.",
        "parameters": {
            "type": "object",
            "properties": {"room": {"enum": ["kitchen", "hall"]}, "on": {"type": "boolean"}},
            "required": ["room", "on"],
            "additionalProperties": False,
        },
    },
}


def main() -> None:
    """Do what such applications do."""
    litellm.suppress_debug_info = True  # it would print beside our JSON
    choice = {"type": "function", "function": {"name": "switch_light"}}
    forced = {**ASKED, "tools": [LIGHT], "tool_choice": choice}
    facts = {
        "completion": told(litellm.completion(**ASKED)),
        "stream": told(litellm.stream_chunk_builder(list(litellm.completion(**ASKED, stream=True)))),
        "tool": told(litellm.completion(**forced)),
        "streamed_tool": told(litellm.stream_chunk_builder(list(litellm.completion(**forced, stream=True)))),
    }
    print(json.dumps(facts))  # noqa: T201


def told(response: Any) -> dict[str, Any]:
    """An answer as plain data."""
    found: dict[str, Any] = response.choices[0].model_dump()
    return found | {"usage": response.usage.model_dump()}


main()
