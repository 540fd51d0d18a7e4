"""The code of stages against their versions: who changes what a stage writes raises its version."""

from typing import Any

import pytest
from stage_hashes import compute_hashes, judge, list_closure, list_imports, normalise, read_hashes, update

from commonweight.workshop.recipe.stages import KINDS

RECORDED: dict[str, Any] = {"kinds": {"mix": {"version": 1, "hash": "a"}}, "exempt": []}


def test_no_code_changed_without_a_new_version() -> None:
    assert list(judge(compute_hashes(), read_hashes())) == []


def test_every_exemption_has_a_reason_and_is_in_use() -> None:
    recorded, now = read_hashes(), compute_hashes()
    for entry in recorded["exempt"]:
        assert len(entry["reason"]) > 10
        assert entry["hash"] == now[entry["kind"]][1]


@pytest.mark.parametrize("name", KINDS)
def test_a_closure_stays_below_the_recipe(name: str) -> None:
    modules = list_closure([KINDS[name].module])
    assert KINDS[name].module in modules
    assert [module for module in modules if module.startswith("commonweight.workshop.recipe")] == []


def test_a_closure_holds_what_decides_the_output() -> None:
    mixed = list_closure([KINDS["mix"].module])
    assert mixed.keys() >= {
        f"commonweight.workshop.data.{name}" for name in ("mix", "dataset", "rows", "settings")
    }
    trained = list_closure([KINDS["pretrain"].module])
    assert trained.keys() >= {
        f"commonweight.workshop.training.{name}" for name in ("model", "optimizer", "packing")
    }
    # Also what is imported inside functions only.
    exported = list_closure([KINDS["export"].module])
    assert "commonweight.workshop.data.dataset" in exported


def test_imports_are_found_anywhere() -> None:
    source = "import a.b\ndef f():\n    from c import d as e\n    if f:\n        import g\n"
    assert set(list_imports(source)) == {"a.b", "c", "c.d", "g"}


CODE = "def double(x: int) -> int:\n    return 2 * x\n\n\nclass A:\n    field: int = 1\n"


@pytest.mark.parametrize(
    "same",
    [
        '"""A module."""\n' + CODE,
        CODE.replace("return", '"""Doubles."""\n    # why\n    return'),
        CODE.replace("= 1\n", '= 1\n    """What it is."""\n'),
        CODE.replace("2 * x", "(2\n        * x)"),
    ],
)
def test_comments_and_layout_do_not_count(same: str) -> None:
    assert normalise(same) == normalise(CODE)


@pytest.mark.parametrize(("before", "after"), [("2 * x", "3 * x"), ("= 1", "= 2"), ("x: int", "x: float")])
def test_code_counts(before: str, after: str) -> None:
    assert normalise(CODE.replace(before, after)) != normalise(CODE)


def test_changed_code_is_named_with_what_to_do() -> None:
    [problem] = judge({"mix": (1, "b")}, RECORDED)
    assert "the code of mix has changed (b)" in problem
    assert "--unchanged" in problem
    assert list(judge({"mix": (1, "b")}, update({"mix": (1, "b")}, RECORDED, None))) == [problem]


@pytest.mark.parametrize(
    ("kinds", "reason"), [({"mix": (1, "b")}, "only a name"), ({"mix": (2, "b")}, None), ({}, None)]
)
def test_the_file_is_brought_up_to_date(kinds: dict[str, tuple[int, str]], reason: str | None) -> None:
    assert list(judge(kinds, RECORDED))
    assert list(judge(kinds, update(kinds, RECORDED, reason))) == []


def test_an_exemption_holds_for_one_hash() -> None:
    exempt = update({"mix": (1, "b")}, RECORDED, "only a name")
    assert exempt["kinds"] == RECORDED["kinds"]
    assert list(judge({"mix": (1, "c")}, exempt))
    assert update({"mix": (2, "c")}, exempt, None) == {"kinds": {"mix": {"version": 2, "hash": "c"}}, "exempt": []}
