"""Routes, bodies, server-sent events, errors in the API's shape. Decides nothing about conversation."""

from commonweight.server.app import create_app
from commonweight.server.connection import MOST_CONNECTIONS, configured
from commonweight.server.lifecycle import Lifecycle

__all__ = ["MOST_CONNECTIONS", "Lifecycle", "configured", "create_app"]
