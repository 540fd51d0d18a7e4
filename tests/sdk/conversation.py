"""A client application: everything it does with the SDK it finds, told as JSON on standard output.

``test_sdks.py`` runs it once with each SDK, so it uses only what the old one and the current one share.
Where the server is and which key it wants come from the environment, as for any application.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import anthropic
from anthropic.types import MessageParam

MODEL = "claude-opus-5-5"
SYSTEM = "Answer in one sentence."
QUESTIONS = ("Name a colour.", "Name another colour.", "Which of the two do you like more?")
COUNTING: list[MessageParam] = [
    {"role": "user", "content": "Count from 1 to 20."},
    {"role": "assistant", "content": "1, 2, 3, 4,"},
]
ENDING: list[MessageParam] = [
    {"role": "user", "content": "Count from 1 to 9."},
    {"role": "assistant", "content": "1, 2, 3, 4, 5, 6, 7, 8,"},
]
GREETING: list[MessageParam] = [{"role": "user", "content": "Say hello."}]
TOO_LONG: list[MessageParam] = [{"role": "user", "content": "word " * 9000}]
LIKELIEST = {"temperature": 0}


def main() -> None:
    """Talk to the server and tell what happened."""
    sent: list[dict[str, str]] = []
    http = anthropic.DefaultHttpxClient(
        event_hooks={"request": [lambda request: sent.append(dict(request.headers))]}
    )
    # Strict validation: an answer that lacks a field of the SDK's types is an error.
    with anthropic.Anthropic(http_client=http, max_retries=0, _strict_response_validation=True) as client:
        facts = {
            "version": anthropic.__version__,
            "turns": converse(client),
            "answers": {
                "stop_sequence": both_ways(
                    client, {"max_tokens": 40, "messages": COUNTING, "stop_sequences": ["9", "8"]}
                ),
                "max_tokens": both_ways(client, {"max_tokens": 5, "messages": COUNTING}),
                "end_turn": both_ways(client, {"max_tokens": 40, "messages": ENDING}),
                "empty": both_ways(client, {"max_tokens": 0, "messages": GREETING}),
            },
            "tokens": {
                "bare": tokens(client, GREETING),
                "with_system": tokens(client, GREETING, SYSTEM),
                "too_long": tokens(client, TOO_LONG),
            },
            "models": models(client),
            "errors": {
                "wrong_key": failure(
                    lambda: client.with_options(api_key="sk-wrong").messages.create(
                        model=MODEL, max_tokens=5, messages=GREETING
                    )
                ),
                "too_long": failure(lambda: client.messages.create(model=MODEL, max_tokens=5, messages=TOO_LONG)),
                "too_long_stream": failure(
                    lambda: client.messages.create(model=MODEL, max_tokens=5, messages=TOO_LONG, stream=True)
                ),
                "no_such_model": failure(lambda: client.models.retrieve("no-such-model")),
            },
        }
    json.dump({**facts, "headers": sent}, sys.stdout)


def converse(client: anthropic.Anthropic) -> list[dict[str, Any]]:
    """Stream a conversation in which every request carries all answers so far."""
    history: list[MessageParam] = []
    turns = []
    for question in QUESTIONS:
        history.append({"role": "user", "content": question})
        expected = tokens(client, history, SYSTEM)
        with client.messages.stream(model=MODEL, max_tokens=24, system=SYSTEM, messages=history) as stream:
            seen = "".join(stream.text_stream)
            message = stream.get_final_message()
        turns.append(
            {
                "counted": expected,
                "seen": seen,
                "request_id": stream.response.headers["request-id"],
                "message": message.model_dump(mode="json"),
            }
        )
        history.append({"role": "assistant", "content": seen})
    return turns


def both_ways(client: anthropic.Anthropic, arguments: dict[str, Any]) -> dict[str, Any]:
    """One request without streaming, and with: the stream as it comes over the wire."""
    arguments = {"model": MODEL, "extra_body": LIKELIEST, **arguments}
    message = client.messages.create(**arguments)
    with client.messages.with_streaming_response.create(stream=True, **arguments) as response:
        stream = response.read().decode()
        content_type = response.headers["content-type"]
    return {
        "request_id": message._request_id,
        "message": message.model_dump(mode="json"),
        "content_type": content_type,
        "stream": stream,
    }


def tokens(client: anthropic.Anthropic, messages: list[MessageParam], system: str = "") -> int:
    """How long a prompt is."""
    arguments: dict[str, Any] = {"system": system} if system else {}
    return client.messages.count_tokens(model=MODEL, messages=messages, **arguments).input_tokens


def models(client: anthropic.Anthropic) -> list[dict[str, Any]]:
    """What the server lists, each entry with what it says when asked for that name alone."""
    return [
        {"listed": info.model_dump(mode="json"), "alone": client.models.retrieve(info.id).model_dump(mode="json")}
        for info in client.models.list()
    ]


def failure(call: Callable[[], object]) -> dict[str, Any]:
    """The exception that the SDK makes of an error."""
    try:
        call()
    except anthropic.APIStatusError as error:
        return {
            "class": type(error).__name__,
            "status": error.status_code,
            "request_id": error.request_id,
            "body": error.body,
        }
    return {"class": None}


main()
