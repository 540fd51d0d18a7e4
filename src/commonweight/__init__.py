"""Run open-weight models as complete, guarded assistants behind the documented Messages API."""

__version__ = "0.1.0"
