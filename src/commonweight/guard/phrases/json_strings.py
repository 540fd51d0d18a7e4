"""Reading of the strings in JSON that may be cut short, as the input of a tool call that a limit ended."""

import re

from commonweight.guard.phrases.index import unescape

_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)(?:"(\s*:)?|\\?$)|([^\s{}\[\],:"]+)', re.DOTALL)


def read_strings(written: str) -> tuple[list[str], list[str]]:
    """Read keys and values in their order, and the values alone; numbers and constants as they are written.

    JSON is not parsed as a whole: of a key that is there twice, both values are read.
    """
    keys_and_values, values = [], []
    for match in _TOKEN.finditer(written):
        text = match[3] if match[1] is None else unescape(match[1])
        keys_and_values.append(text)
        if match[2] is None:
            values.append(text)
    return keys_and_values, values
