"""Client of the server under test: raw HTTP, the official SDK, and the declared capabilities."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import anthropic
import httpx

from commonweight.conformance.checks import NotApplicableError
from commonweight.conformance.conversation import GREETING, Json
from commonweight.conformance.grammar import Stream, read_stream
from commonweight.conformance.shapes import check_error, prompt_tokens

OLD_VERSION, NEW_VERSION = "2023-06-01", "2026-10-21"
MESSAGES = "/v1/messages"
COUNT = MESSAGES + "/count_tokens"
ANSWER_TIMEOUT_SECONDS = 60.0
"""Seconds that a server gets for one answer."""


# A connection that the server has just closed must not fail the check after.
NO_KEEPALIVE = httpx.Limits(max_keepalive_connections=0)


class WrongKeyError(Exception):
    """The server refuses the key, so that no check can run."""


@dataclass(frozen=True)
class Target:
    """Server under test. Raw requests are sent as by most clients: key in ``x-api-key``, version 2023-06-01."""

    url: str
    key: str | None
    model: str
    info: Json
    """Response of ``GET /v1/models/{id}``; empty if there is none."""
    http: httpx.AsyncClient = field(repr=False)
    sdk: anthropic.AsyncAnthropic = field(repr=False)
    betas: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """The headers of an ordinary request."""
        headers = {**self.credentials, "anthropic-version": OLD_VERSION, "content-type": "application/json"}
        return headers | {"anthropic-beta": self.betas} if self.betas else headers

    @property
    def credentials(self) -> dict[str, str]:
        """The key as a header. A server without keys has to accept any."""
        return {"x-api-key": self.key or "any"}

    @property
    def window(self) -> int | None:
        """Maximum tokens of a prompt; None if not declared."""
        return self.info.get("max_input_tokens")

    def declares(self, capability: str) -> bool | None:
        """Declared support of a capability such as ``thinking.types.adaptive``; None if undeclared."""
        place = self.info.get("capabilities")
        for name in capability.split("."):
            place = place.get(name) if isinstance(place, dict) else None
        supported = place.get("supported") if isinstance(place, dict) else None
        return supported if isinstance(supported, bool) else None

    def with_betas(self, betas: str) -> "Target":
        """The same server, asked with a list of betas."""
        return replace(self, betas=betas)

    def require_key(self) -> str:
        """The key, for checks of what happens without it."""
        if self.key is None:
            raise NotApplicableError("no API key was given to try wrong ones against")
        return self.key

    def request(self, **changes: object) -> Json:
        """A body for ``POST /v1/messages``: a greeting with a short answer, but for the changes."""
        return {"model": self.model, "max_tokens": 16, "messages": GREETING, **changes}

    async def post(
        self, body: Json | bytes, path: str = MESSAGES, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """Send a body. ``headers`` stand in for the ordinary ones."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.http.post(path, content=content, headers=self.headers if headers is None else headers)

    async def send_raw(self, body: Json, more: tuple[str, ...] = (), version: str = "1.1") -> bytes:
        """All that the server sends back to a request on a connection of its own; ``more``: header lines."""
        url = httpx.URL(self.url)
        is_tls = url.scheme == "https"
        content = json.dumps(body).encode()
        fields = {
            "host": url.netloc.decode(),
            **self.headers,
            "connection": "close",
            "content-length": len(content),
        }
        lines = [f"POST {MESSAGES} HTTP/{version}", *(f"{name}: {value}" for name, value in fields.items()), *more]
        async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection(
                url.host, url.port or (443 if is_tls else 80), ssl=is_tls
            )
            try:
                writer.write("\r\n".join([*lines, "", ""]).encode() + content)
                return await reader.read()
            finally:
                writer.close()

    async def get(self, path: str, **parameters: str | int) -> httpx.Response:
        """Read something."""
        return await self.http.get(path, params=parameters, headers=self.headers)

    async def create_message(self, **changes: object) -> Json:
        """The answer to a request, not streamed."""
        return check_accepted(await self.post(self.request(**changes)))

    async def stream(self, **changes: object) -> Stream:
        """The answer to a request, streamed, and checked against the grammar."""
        response = await self.post(self.request(**changes, stream=True))
        assert response.status_code == 200, f"HTTP {response.status_code}: {response.text[:200]}"
        return read_stream(response.text)

    async def read_refusal(self, path: str = MESSAGES, /, **changes: object) -> str:
        """The message with which an invalid request is refused."""
        return check_error(await self.post(self.request(**changes), path), 400, "invalid_request_error")

    async def count_prompt_tokens(self, **changes: object) -> int:
        """Prompt tokens of a request, as its usage reports them."""
        return prompt_tokens((await self.create_message(**{"max_tokens": 1, **changes}))["usage"])

    async def count(self, **changes: object) -> int:
        """Prompt tokens of a request, as ``count_tokens`` says."""
        body = {"model": self.model, "messages": GREETING, **changes}
        tokens: int = check_accepted(await self.post(body, COUNT))["input_tokens"]
        return tokens


def check_accepted(response: httpx.Response) -> Json:
    """The body of an answer that must be no error."""
    assert response.status_code == 200, f"HTTP {response.status_code}: {response.text[:200]}"
    body: Json = response.json()
    return body


@contextlib.asynccontextmanager
async def open_target(url: str, key: str | None = None, model: str | None = None) -> AsyncIterator[Target]:
    """Connect to a server. Without ``model`` the first that it lists is asked.

    Raises:
        httpx.TransportError: there is no server.
        WrongKeyError: it wants another key.
    """
    async with (
        httpx.AsyncClient(base_url=url, timeout=ANSWER_TIMEOUT_SECONDS, limits=NO_KEEPALIVE) as http,
        anthropic.AsyncAnthropic(
            base_url=url,
            api_key=key or "any",
            max_retries=0,
            timeout=ANSWER_TIMEOUT_SECONDS,
            _strict_response_validation=True,  # an answer that lacks a field of the SDK's types is an error
        ) as sdk,
    ):
        target = Target(url, key, model or "any", {}, http, sdk)
        if model is None:
            listed = await _json(target, "/v1/models")
            model = next((entry["id"] for entry in listed.get("data") or []), "any")
        yield Target(url, key, model, await _json(target, f"/v1/models/{model}"), http, sdk)


async def _json(target: Target, path: str) -> Json:
    """JSON body of a successful response, or an empty object; checks require more."""
    response = await target.get(path)
    if response.status_code in (401, 403):
        raise WrongKeyError(f"{target.url} refuses the API key: {response.text[:200]}")
    with contextlib.suppress(ValueError):
        if response.status_code == 200 and isinstance(body := response.json(), dict):
            return body
    return {}
