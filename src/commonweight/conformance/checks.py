"""Checks: a rule of the contract in one sentence, and a coroutine that tests it on a server."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from commonweight.conformance.target import Target

Trial = Callable[["Target"], Awaitable[None]]


class NotApplicableError(Exception):
    """The rule does not apply to this server; the message says why."""


@dataclass(frozen=True)
class Check:
    """Check of one rule; calling it runs it."""

    section: str
    name: str
    rule: str
    """The docstring: what must hold, and the section of the contract that says so."""
    trial: Trial
    needs: tuple[str, ...] = ()
    """Capabilities without which the rule does not apply, such as ``thinking.types.adaptive``."""
    lacks: tuple[str, ...] = ()
    """Capabilities with which the rule does not apply; such rules say how to refuse a feature."""

    async def __call__(self, target: Target) -> None:
        """Try the rule.

        Raises:
            AssertionError: it does not hold, and the message says what was seen.
            NotApplicableError: the server declares that it lacks what the rule is about, or has it.
        """
        for capability in self.needs:
            if target.declares(capability) is False:
                raise NotApplicableError(f"declares {capability} unsupported")
        for capability in self.lacks:
            if target.declares(capability) is not False:
                raise NotApplicableError(f"does not declare {capability} unsupported")
        await self.trial(target)


def check(*, needs: str = "", lacks: str = "") -> Callable[[Trial], Check]:
    """Make a check of a function: its module is the section, its name the title, its docstring the rule.

    ``needs`` and ``lacks`` name capabilities of ``GET /v1/models/{id}``, separated by spaces. A server that
    declares nothing is taken to have them all.
    """

    def decorate(trial: Trial) -> Check:
        section = trial.__module__.rpartition(".")[2]
        name = getattr(trial, "__name__", "").replace("_", " ")
        rule = " ".join((inspect.getdoc(trial) or "").split())
        return Check(section, name, rule, trial, tuple(needs.split()), tuple(lacks.split()))

    return decorate
