"""Server: the Messages API over HTTP: routes, request bodies, server-sent events, errors in the API's shape."""

from commonweight.server.app import create_app, make_turn_listeners
from commonweight.server.connection import MAX_CONNECTIONS, make_uvicorn_config
from commonweight.server.lifecycle import Lifecycle
from commonweight.server.metrics import Metrics

__all__ = ["MAX_CONNECTIONS", "Lifecycle", "Metrics", "create_app", "make_turn_listeners", "make_uvicorn_config"]
