"""One assistant turn, from the request to its last event."""

from commonweight.turn.assistant import Assistant, Turn

__all__ = ["Assistant", "Turn"]
