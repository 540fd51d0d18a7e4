"""Access log: one line for each request, without any content."""

import logging
from typing import Any

from commonweight.server.request_log import RequestRecord

log = logging.getLogger(__name__)

PROBE_PATHS = frozenset({"/health", "/ready", "/metrics"})
"""Paths that machines which look after the server ask all day. Their lines are for debugging."""
_MOST_PATH = 200


def log_request(exchange: RequestRecord) -> None:
    """Write the line of a request."""
    level = logging.DEBUG if exchange.route in PROBE_PATHS else logging.INFO
    if not log.isEnabledFor(level):
        return
    # Without the query, where some put keys; and not as it came, since it may hold line breaks.
    path = ascii(exchange.path[:_MOST_PATH])[1:-1]
    log.log(level, "%s %s %d", exchange.method, path, exchange.status, extra=_make_fields(exchange))


def _make_fields(exchange: RequestRecord) -> dict[str, Any]:
    facts = {
        "request_id": exchange.request_id,
        "method": exchange.method,
        "route": exchange.route,
        "status": exchange.status,
        "seconds": round(exchange.seconds, 3),
        "key_id": exchange.key_id,
        "error": exchange.error,
    }
    if turn := exchange.turn:
        usage, times = turn.usage, turn.times
        facts |= {
            "input_tokens": usage.input_tokens,
            "cache_read_tokens": usage.cache_read_input_tokens,
            "cache_write_tokens": usage.cache_creation_input_tokens,
            "output_tokens": usage.output_tokens,
            "outcome": turn.outcome,
            "queue_seconds": times.queue and round(times.queue, 3),
            "first_token_seconds": times.first_token and round(times.first_token, 3),
        }
    return {name: value for name, value in facts.items() if value is not None}
