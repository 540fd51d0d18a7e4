"""Checks by section of the contract, one module each, in the order in which they run."""

from types import ModuleType

from commonweight.conformance.checks import Check
from commonweight.conformance.sections import (
    caching,
    concurrency,
    context,
    counting,
    documents,
    errors,
    messages,
    models,
    streaming,
    structured,
    thinking,
    tool_changes,
    tools,
    transport,
)

_IN_ORDER: tuple[ModuleType, ...] = (
    transport,
    messages,
    streaming,
    tools,
    tool_changes,
    thinking,
    structured,
    counting,
    caching,
    context,
    documents,
    models,
    errors,
    concurrency,
)


def _checks_of(section: ModuleType) -> tuple[Check, ...]:
    return tuple(member for member in vars(section).values() if isinstance(member, Check))


SECTIONS: dict[str, tuple[Check, ...]] = {
    section.__name__.rpartition(".")[2]: _checks_of(section) for section in _IN_ORDER
}
