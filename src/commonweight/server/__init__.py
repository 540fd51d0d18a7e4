"""Routes, bodies, server-sent events, errors in the API's shape. Decides nothing about conversation."""

from commonweight.server.app import create_app
from commonweight.server.lifecycle import Lifecycle

__all__ = ["Lifecycle", "create_app"]
