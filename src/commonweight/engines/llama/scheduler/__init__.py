"""Continuous batching: which sequences run, what each batch computes, and what is reused instead of computed."""

from commonweight.engines.llama.scheduler.scheduler import JobEvents, Scheduler

__all__ = ["JobEvents", "Scheduler"]
