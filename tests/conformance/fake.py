"""A server with no model behind it, whose streams keep to the contract unless it is told how to spoil them."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]
Spoil = Callable[[list[Json]], list[Json]]
Encode = Callable[[list[Json]], str]

PROMPT: Json = {"input_tokens": 9, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}


def answer(request: Json) -> Json:
    """As many words as are allowed, always the same."""
    tokens = request["max_tokens"]
    words = [{"type": "text", "text": "word " * min(tokens, 50)}] if tokens else []
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": request["model"],
        "content": words,
        "stop_reason": "max_tokens",
        "stop_sequence": None,
        "usage": {**PROMPT, "output_tokens": tokens},
    }


def events(request: Json) -> list[Json]:
    """The same as a stream."""
    message = answer(request)
    begun: Json = {"content": [], "stop_reason": None, "usage": {**PROMPT, "output_tokens": 0}}
    told: list[Json] = [{"type": "message_start", "message": message | begun}]
    for index, block in enumerate(message["content"]):
        told.append({"type": "content_block_start", "index": index, "content_block": block | {"text": ""}})
        told += [
            {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": word + " "}}
            for word in block["text"].split()
        ]
        told.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    return [*told, {"type": "message_delta", "delta": delta, "usage": message["usage"]}, {"type": "message_stop"}]


def frames(told: list[Json]) -> str:
    """Events as they travel."""
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in told)


@contextlib.contextmanager
def serving(
    spoil: Spoil = lambda told: told,
    encode: Encode = frames,
    headers: Json | None = None,
    errors_as_json: bool = True,
) -> Iterator[str]:
    """The URL of the server, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if not request["messages"]:
                error = {"type": "invalid_request_error", "message": "messages: at least one is required"}
                body: Json = {"type": "error", "error": error, "request_id": "req_1"}
                if errors_as_json:
                    self._send(400, json.dumps(body))
                else:
                    self._send(200, frames([body]), {"content-type": "text/event-stream"})
            elif request.get("stream"):
                kind = {"content-type": "text/event-stream", "cache-control": "no-cache"}
                self._send(200, encode(spoil(events(request))), kind | (headers or {}))
            else:
                self._send(200, json.dumps(answer(request)))

        def do_GET(self) -> None:
            self._send(404, json.dumps({"type": "error", "error": {"type": "not_found_error", "message": "none"}}))

        def _send(self, status: int, text: str, headers: Json | None = None) -> None:
            body = text.encode()
            self.send_response(status)
            for name, value in {"content-type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            # Some checks leave before they have read everything.
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
