"""Charters in the terminal: an overview, one principle, differences."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from commonweight.cli.terminal import make_console, print_table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from commonweight.charter import Change, Charter, Principle
    from commonweight.charter.places import PlaceRule
    from commonweight.charter.principle import Place
    from commonweight.workshop.heads.prose_checks import ProseCheck

_PLACES: tuple[tuple["Place", str], ...] = (
    ("input", "in"),
    ("system", "sys"),
    ("document", "doc"),
    ("history", "his"),
    ("tools", "def"),
    ("tool_result", "res"),
    ("output", "out"),
    ("thinking", "thk"),
    ("tool_input", "cal"),
)
"""Places with their heads in the table, which fits into 80 characters."""
_SIGNS = {"refuse": "●", "log": "○"}
_SHADOW_SIGN, _OFF_SIGN = "◌", "-"


def print_overview(charter: "Charter") -> None:
    """Print a charter as a table of its principles."""
    from rich import box
    from rich.table import Table

    from commonweight.charter.places import find_rules

    console = make_console()
    console.print(charter.title, style="bold")
    console.print(f"{charter.id} {charter.version}, {charter.licence}, sha256 {charter.sha256[:16]}", style="dim")
    console.print()
    console.print(charter.preamble)
    console.print()
    table = Table("principle", "tier", "severity", " ".join(name for _, name in _PLACES), box=box.SIMPLE_HEAD)
    table.pad_edge, table.collapse_padding = False, True
    for column in table.columns:
        column.no_wrap = True
    for principle in charter.principles:
        rules = find_rules(charter, principle)
        signs = (_choose_sign(rules.get(place)).ljust(len(name) + 1) for place, name in _PLACES)
        table.add_row(principle.id, principle.tier, principle.severity, "".join(signs))
    print_table(table)
    console.print("● refuses   ○ records only   ◌ in shadow   - off   empty: not screened there", style="dim")
    console.print(", ".join(f"{name}: {place}" for place, name in _PLACES), style="dim")
    if charter.schema_ == "charter/1":
        console.print("The charter's schema, charter/1, does not know sys, doc, his and def.", style="dim")


def _choose_sign(rule: "PlaceRule | None") -> str:
    if rule is None:
        return ""
    return {"enforce": _SIGNS[rule.action], "shadow": _SHADOW_SIGN, "off": _OFF_SIGN}[rule.mode]


def format_unscreened(charter: "Charter", principle: "Principle") -> str:
    """Format the places where a principle is not looked for; empty if there is none."""
    from commonweight.charter import list_unscreened

    places = list_unscreened(charter, principle)
    return f"not screened in: {', '.join(places)}" if places else ""


def format_principle(charter: "Charter", principle: "Principle") -> "RenderableType":
    """Format one principle, whole."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    where = ", ".join(f"{place}: {action}" for place, action in principle.applies_to.items())
    facts = [principle.id, principle.tier, principle.severity, *sorted(principle.hazards)]
    parts: list[RenderableType] = [
        Text(principle.title, style="bold"),
        Text(" . ".join([*facts, where, f"mode {principle.mode}"]), style="dim"),
    ]
    if unscreened := format_unscreened(charter, principle):
        parts.append(Text(unscreened, style="dim"))
    for name in ("restricts", "permits", "message"):
        parts += [Text(f"\n{name.capitalize()}", style="bold"), Padding(Text(getattr(principle, name)), (0, 2))]
    if principle.phrases:
        parts.append(Text("\nPhrases", style="bold"))
        parts += [Padding(Text(phrase), (0, 2)) for phrase in principle.phrases]
    parts.append(Text("\nExamples", style="bold"))
    for one in principle.complying:
        why = f" ({one.why})" if one.why else ""
        parts.append(Padding(Text(f"complies  {one.text}{why}"), (0, 2)))
    for other in principle.violating:
        text = other.text if isinstance(other.text, str) else f"{other.text.source}#{other.text.sha256}"
        parts.append(Padding(Text(f"violates  {text}", style="dim"), (0, 2)))
    return Group(*parts)


def print_checks(checks: "Sequence[ProseCheck]") -> None:
    """Print what heads of words do with the examples of their principles, and what to write next."""
    console = make_console()
    for check in checks:
        caught = sum(one.is_refused for one in check.violating)
        refused = sum(one.is_refused for one in check.complying)
        console.print(check.principle, style="bold")
        console.print(
            f"  caught {caught} of {len(check.violating)} examples that violate, refused {refused} of "
            f"{len(check.complying)} that comply, and {check.ordinary.refused} of {check.ordinary.texts} "
            "ordinary requests",
            soft_wrap=True,
        )
        for one in check.complying:
            if one.is_refused:
                console.print(f"  refused without need: {one.text}", style="yellow", soft_wrap=True)
        for line in check.advice:
            console.print(f"  next: {line}", soft_wrap=True)


def print_changes(changes: "Sequence[Change]") -> None:
    """Print the differences between two charters."""
    console = make_console()
    where = ""
    for change in changes:
        if change.where != where:
            console.print(change.where, style="bold")
            where = change.where
        _print_change(change)
    if not changes:
        console.print("nothing changed in meaning", style="dim")


def _print_change(change: "Change") -> None:
    console = make_console()
    name = f"{change.what} {change.kind}" if change.what else change.kind
    console.print(f"  {name}", style="yellow")
    for sign, text, style in (("-", change.before, "red"), ("+", change.after, "green")):
        for line in text.splitlines():
            console.print(f"    {sign} {line}", style=style, soft_wrap=True)
    if change.warning:
        console.print(f"    ! {change.warning}", style="bold red", soft_wrap=True)
