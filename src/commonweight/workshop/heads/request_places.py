"""Places of a request that labelled texts are put at, so that a guard meets them as a client would send them."""

from collections.abc import Callable, Mapping
from typing import Any, get_args

from commonweight.charter.principle import Place
from commonweight.guard import Guard
from commonweight.messages.request import MessageRequest
from commonweight.runtime.errors import UserError
from commonweight.workshop.heads.states import replace_surrogates

_Body = dict[str, Any]
GREETING = "Hello."
"""Said by the user where the text that is measured stands elsewhere."""


def _put_input(text: str) -> _Body:
    return {"messages": [_say("user", text)]}


def _put_system(text: str) -> _Body:
    return {"system": text, "messages": [_say("user", GREETING)]}


def _put_document(text: str) -> _Body:
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": text}}
    return {"messages": [_say("user", [document, {"type": "text", "text": "What is this about?"}])]}


def _put_history(text: str) -> _Body:
    return {"messages": [_say("user", text), _say("assistant", "All right."), _say("user", GREETING)]}


def _put_tool(text: str) -> _Body:
    tool = {"name": "look_up", "description": text, "input_schema": {"type": "object", "properties": {}}}
    return {"tools": [tool], "messages": [_say("user", GREETING)]}


def _put_tool_result(text: str) -> _Body:
    call = {"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": text}
    messages = [_say("user", "Look it up."), _say("assistant", [call]), _say("user", [result])]
    return _put_tool("Looks up a page.") | {"messages": messages}


_BODIES: Mapping[str, Callable[[str], _Body]] = {
    "input": _put_input,
    "system": _put_system,
    "document": _put_document,
    "history": _put_history,
    "tools": _put_tool,
    "tool_result": _put_tool_result,
}
REQUEST_PLACES = tuple(_BODIES)
"""Places that a text can be put at."""
OUTPUT = "output"
"""The place of answers, which no request carries."""


def make_request(text: str, place: str = "input", max_tokens: int = 0) -> MessageRequest:
    """Make a request with a text at a place. With ``max_tokens`` 0 the prompt is read and not answered."""
    body = _BODIES[place](replace_surrogates(text))
    return MessageRequest.model_validate({"model": "m", "max_tokens": max_tokens, **body})


def find_screened_places(guard: Guard) -> tuple[str, ...]:
    """Find the places of a request that a principle of the guard's charter applies to."""
    used = {place for principle in guard.charter.principles for place in principle.applies_to}
    return tuple(place for place in REQUEST_PLACES if place in used)


def require_place(guard: Guard, place: str) -> None:
    """Require that a guard screens a place.

    Raises:
        UserError: there is no such place, or the charter has no principle for it.
    """
    known = [one for one in (*REQUEST_PLACES, OUTPUT) if one in get_args(Place)]
    if place not in known:
        raise UserError(f"a guard has no place {place!r}; choose one of {', '.join(known)}")
    if not any(place in principle.applies_to for principle in guard.charter.principles):
        raise UserError(f"no principle of the charter {guard.charter.id} applies to {place}: nothing is screened")


def _say(role: str, content: object) -> _Body:
    return {"role": role, "content": content}
