"""What changed between two charters."""

from writing import FIRST, TEXT, small

from commonweight.charter import Change, compare_charters, parse

SECOND = FIRST.replace("id: spoilers", "id: endings").replace("No spoilers", "No endings")


def test_nothing_changes_by_layout() -> None:
    assert compare_charters(small(), small(("Be kind.", "Be\nkind.\n\n"))) == []


def test_what_changed_is_named_with_both_texts() -> None:
    changes = compare_charters(
        small(), small(("input: log", "input: refuse"), ("That would spoil it.", "No."), ("Be kind.", "Be."))
    )
    assert changes == [
        Change("acme", "preamble", "changed", "Be kind.", "Be."),
        Change("spoilers", "applies_to", "changed", "input: log, output: refuse", "input: refuse, output: refuse"),
        Change("spoilers", "message", "changed", "That would spoil it.", "No."),
    ]


def test_principles_come_and_go() -> None:
    two = parse((TEXT + SECOND).encode())
    assert compare_charters(small(), two) == [Change("endings", "", "added", after="No endings")]
    [gone] = compare_charters(two, small())
    assert (gone.where, gone.kind) == ("endings", "removed")
    assert "add the id to `retired`" in gone.warning
    retired = small(('version: "1"', 'version: "1"\nretired: [endings]'))
    assert [change.warning for change in compare_charters(two, retired)] == ["", ""]
    warned = [change.warning for change in compare_charters(retired, two) if change.warning]
    assert warned == ["the id was retired", "endings is no longer listed: old verdicts may name it"]


def test_softening_a_hard_one_is_warned_of() -> None:
    hard = small(("tier: ethics", "tier: hard"))
    [change] = compare_charters(hard, small())
    assert change.warning == "this was a hard principle"
    assert compare_charters(small(), hard)[0].warning == ""
