"""Routes, bodies, server-sent events, errors in the API's shape. Decides nothing about conversation."""

from commonweight.server.app import create_app
from commonweight.server.connection import MAX_CONNECTIONS, make_uvicorn_config
from commonweight.server.lifecycle import Lifecycle

__all__ = ["MAX_CONNECTIONS", "Lifecycle", "create_app", "make_uvicorn_config"]
