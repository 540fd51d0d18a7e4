"""Documents as text, read in child processes with limits."""

from commonweight.documents.reader import DocumentError, DocumentReader
from commonweight.documents.worker import Limits

__all__ = ["DocumentError", "DocumentReader", "Limits"]
