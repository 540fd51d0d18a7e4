"""What every check must have, so that a failure can be understood by whoever reads it."""

import re
from collections import Counter

import pytest

from commonweight.conformance import SECTIONS

CHECKS = [check for checks in SECTIONS.values() for check in checks]


@pytest.mark.parametrize("section", SECTIONS)
def test_sections_hold_their_own_checks(section: str) -> None:
    assert SECTIONS[section]
    assert {check.section for check in SECTIONS[section]} == {section}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: f"{check.section}-{check.name}")
def test_a_rule_says_where_it_stands(check: object) -> None:
    rule = getattr(check, "rule", "")
    assert re.search(r"\w[`)}]* \(§\d+(\.\d+)?(, §\d+(\.\d+)?)*\)\.$", rule), rule


def test_names_are_unique() -> None:
    twice = [name for name, times in Counter((check.section, check.name) for check in CHECKS).items() if times > 1]
    assert not twice


def test_capabilities_are_those_of_the_contract() -> None:
    from commonweight.conformance.sections.models import FLAT, NESTED

    known = {*FLAT, "thinking", *NESTED, *(f"{name}.{part}" for name, parts in NESTED.items() for part in parts)}
    named = {capability for check in CHECKS for capability in (*check.needs, *check.lacks)}
    assert named
    assert named <= known
