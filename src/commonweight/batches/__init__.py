"""Message Batches: work queued for later, done by an ordinary client of ``turn`` at low priority."""

from commonweight.batches.runner import BatchRunner
from commonweight.batches.service import MAX_UPLOAD_BYTES, BatchService

__all__ = ["MAX_UPLOAD_BYTES", "BatchRunner", "BatchService"]
