"""Keys, at the level of headers; the server's tests show what clients see."""

import pytest

from commonweight.access import Keyring
from commonweight.messages.errors import AuthenticationError


def test_either_header_shows_the_key() -> None:
    keyring = Keyring("secret")
    keyring.check({"x-api-key": "secret"})
    keyring.check({"authorization": "Bearer secret"})
    keyring.check({"authorization": "bearer  secret "})
    keyring.check({"x-api-key": "secret", "authorization": "Bearer other"})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-api-key": "secre"},
        {"x-api-key": "secretsecret"},
        {"authorization": "secret"},
        {"authorization": "Bearer"},
        {"x-api-key": "other", "authorization": "Bearer secret"},
    ],
)
def test_anything_else_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(AuthenticationError):
        Keyring("secret").check(headers)


def test_no_key_lets_everyone_in_but_an_empty_one_is_a_mistake() -> None:
    Keyring(None).check({})
    with pytest.raises(ValueError, match="empty"):
        Keyring("")
