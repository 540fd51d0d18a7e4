"""Continuous batching: admission and preemption, batch planning, prefix reuse and speculative decoding."""

from commonweight.engines.llama.scheduler.scheduler import JobEvents, Scheduler

__all__ = ["JobEvents", "Scheduler"]
