"""A small charter to break in all ways."""

from commonweight.charter import Charter, parse

FRONT = """---
schema: charter/1
id: acme
version: "1"
licence: CC0-1.0
on_judge_failure: {critical: refuse, low: allow}
---

# Acme's charter

Be kind.
"""
FIRST = """
## No spoilers

```yaml
id: spoilers
tier: ethics
severity: low
applies_to: {input: log, output: refuse}
```

### Restricts

Telling how a story ends to somebody who has not read it and did not ask,
or who says that they want to find out for themselves.

### Permits

Talking about a story with those who know it, or who asked how it ends.

### Message

That would spoil it.

### Examples

- violates: tales#0123456789abcdef
- complies: How does Hamlet end?
- complies: I have read it twice. Was he
  really mad? (they know the end)
"""
TEXT = FRONT + FIRST
LINES = TEXT.splitlines()


def with_changes(*changes: tuple[str, str]) -> bytes:
    """The small charter with pieces of text replaced, each of which is in there once."""
    text = TEXT
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text.encode()


def small(*changes: tuple[str, str]) -> Charter:
    """The same, parsed."""
    return parse(with_changes(*changes))


def line_of(text: str) -> int:
    """The number of the only line of the small charter that contains it."""
    [number] = [number for number, line in enumerate(LINES, 1) if text in line]
    return number
