"""Requests with a text at each place, and places that a guard does not screen."""

import pytest

from commonweight.guard import DEFAULT, Bundle, Guard
from commonweight.guard.encoders.encoder import load_encoder
from commonweight.guard.heads.recompile import recompile
from commonweight.runtime.errors import UserError
from commonweight.workshop.heads.request_places import (
    REQUEST_PLACES,
    find_screened_places,
    make_request,
    require_place,
)
from sample_charter import UMBRELLA, charter


def guard() -> Guard:
    encoder = load_encoder()
    return Guard(charter(), recompile(charter(), Bundle.load(DEFAULT, None), encoder, {}), encoder)


@pytest.mark.parametrize("place", REQUEST_PLACES)
def test_a_text_stands_whole_at_one_place(place: str) -> None:
    long = UMBRELLA * 3000
    request = make_request(long, place)
    assert request.max_tokens == 0
    assert request.model_dump_json().count(long) == 1
    last = request.messages[-1].model_dump_json()
    assert (long in last) == (place in ("input", "document", "tool_result"))


def test_lone_surrogates_are_sent_as_a_client_could() -> None:
    assert "a?b" in make_request("a\ud800b").model_dump_json()


@pytest.mark.parametrize("place", ["cellar", "", "thinking"])
def test_an_unknown_place_is_an_error(place: str) -> None:
    with pytest.raises(UserError, match=f"a guard has no place '{place}'; choose one of input, "):
        require_place(guard(), place)


def test_a_place_without_a_principle_is_an_error() -> None:
    screened = guard()
    require_place(screened, "input")
    require_place(screened, "output")
    with pytest.raises(UserError, match="no principle of the charter umbrellas applies to tool_result"):
        require_place(screened, "tool_result")
    assert find_screened_places(screened) == ("input",)
