"""Message Batches: work queued for later, done by an ordinary client of ``turn`` at low priority."""

from commonweight.batches.desk import MAX_UPLOAD, BatchDesk
from commonweight.batches.runner import BatchRunner

__all__ = ["MAX_UPLOAD", "BatchDesk", "BatchRunner"]
