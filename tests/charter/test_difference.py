"""What changed between two charters."""

from writing import FIRST, TEXT, small

from commonweight.charter import Change, differences, parse

SECOND = FIRST.replace("id: spoilers", "id: endings").replace("No spoilers", "No endings")


def test_nothing_changes_by_layout() -> None:
    assert differences(small(), small(("Be kind.", "Be\nkind.\n\n"))) == []


def test_what_changed_is_named_with_both_texts() -> None:
    changes = differences(
        small(), small(("input: log", "input: refuse"), ("That would spoil it.", "No."), ("Be kind.", "Be."))
    )
    assert changes == [
        Change("acme", "preamble", "changed", "Be kind.", "Be."),
        Change("spoilers", "applies_to", "changed", "input: log, output: refuse", "input: refuse, output: refuse"),
        Change("spoilers", "message", "changed", "That would spoil it.", "No."),
    ]


def test_principles_come_and_go() -> None:
    two = parse((TEXT + SECOND).encode())
    assert differences(small(), two) == [Change("endings", "", "added", after="No endings")]
    [gone] = differences(two, small())
    assert (gone.where, gone.kind) == ("endings", "removed")
    assert "add the id to `retired`" in gone.warning
    retired = small(('version: "1"', 'version: "1"\nretired: [endings]'))
    assert [change.warning for change in differences(two, retired)] == ["", ""]
    warned = [change.warning for change in differences(retired, two) if change.warning]
    assert warned == ["the id was retired", "endings is no longer listed: old verdicts may name it"]


def test_softening_a_hard_one_is_warned_of() -> None:
    hard = small(("tier: ethics", "tier: hard"))
    [change] = differences(hard, small())
    assert change.warning == "this was a hard principle"
    assert differences(small(), hard)[0].warning == ""
