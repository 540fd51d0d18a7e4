"""Routes, bodies, server-sent events, errors in the API's shape. Decides nothing about conversation."""

from commonweight.server.app import create_app

__all__ = ["create_app"]
