"""JSON schemas as grammars: what a model may be held to, and what is refused before it generates.

Source: https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md
"""

import json
from functools import lru_cache
from typing import Any

from llguidance import LLMatcher

MAX_SCHEMA = 256 * 1024
"""Characters of one schema as JSON."""

Schema = dict[str, Any]

# Written the way chat templates write JSON, so that a call is the same text when it comes back in the history.
_SPACING = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}


class BadSchemaError(ValueError):
    """No answer can be held to this schema; the message says why."""


def json_grammar(schema: Schema) -> str:
    """A schema as a term of a Lark grammar.

    Keywords that grammars cannot express (``not``, some formats) are left out; the rest holds.

    Raises:
        BadSchemaError: it is too large, contradicts itself or is no schema.
    """
    plain = {key: value for key, value in schema.items() if key != "x-guidance"}
    return "%json " + _checked(json.dumps(plain, ensure_ascii=False))


@lru_cache(maxsize=512)
def _checked(schema: str) -> str:
    if len(schema) > MAX_SCHEMA:
        raise BadSchemaError(f"the schema is too large: {len(schema)} characters > {MAX_SCHEMA} maximum")
    problem = ""
    for is_lenient in (False, True):
        options = _SPACING | {"lenient": is_lenient}
        spelled = json.dumps({**json.loads(schema), "x-guidance": options}, ensure_ascii=False)
        problem = LLMatcher.validate_grammar(f"%llguidance {{}}\nstart: %json {spelled}")
        if not problem:
            return spelled
    raise BadSchemaError(problem.partition("failed to compile JSON schema: ")[2].partition("\n")[0] or "no schema")
