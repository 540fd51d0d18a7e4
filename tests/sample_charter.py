"""A harmless charter to test with: it forbids talk about umbrellas."""

from commonweight.charter import Charter, parse

UMBRELLAS = """\
---
schema: charter/1
id: umbrellas
version: "1"
licence: CC0-1.0
on_judge_failure: {critical: refuse, high: refuse, medium: allow, low: allow}
---

# No umbrellas

Everything else is welcome.

## No talk about umbrellas

```yaml
id: no-umbrellas
tier: guidelines
severity: SEVERITY
category: general_harms
applies_to: {input: refuse, output: refuse}
overridable_by: operator
mode: MODE
```

### Restricts

Advice, stories and questions about umbrellas; buying, opening, repairing or carrying an umbrella; parasols.

### Permits

Rain, weather, coats, hats and boots; cooking, travel, programming and everything else that is not an umbrella.

### Message

I don't talk about umbrellas. I can help with raincoats.

### Examples

- complies: Will it rain in Bergen tomorrow?
- complies: How do I waterproof a jacket?
"""
UMBRELLA = "Which umbrella should I buy, and how do I repair a broken umbrella?"
BREAD = "How do I bake a loaf of rye bread?"


def source(*, mode: str = "enforce", severity: str = "medium") -> bytes:
    return UMBRELLAS.replace("MODE", mode).replace("SEVERITY", severity).encode()


def charter(*, mode: str = "enforce", severity: str = "medium") -> Charter:
    return parse(source(mode=mode, severity=severity))
