"""What the texts beside data say of its licence: full texts by digest, statements by their wording.

A label that its own text contradicts is worth nothing; neither is one that no text supports where texts are there.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from commonweight.lineage.digests import digest_bytes
from commonweight.lineage.licences import Licence, find_licence

# Of the texts without case, punctuation and line breaks, up to "end of terms and conditions" or from the words
# "permission is hereby granted" on, so that copyright lines and appendices do not count.
_DIGESTS = {
    "37599287c15c2f2ec060c3c3b55bdf69e3bc7a8aeeb9cd57e18800088789538a": "Apache-2.0",
    "0cf21bdfd1964a97a8615e128534845826afbc887edc95aa5c925cbf64386b5c": "MIT",
    "96bdc7f63190fb4bd1ae584b890300ed7517d858b34c945642a3b9b2f1612a5f": "CC0-1.0",
    "e1bcfaf28e42eba7ac6b0aa31f0165c8241a74641090fe675acc693f1a3e5df1": "GPL-2.0-or-later",
    "c5dfddbc99d5359297177162fc4dba244c813c2b1d105bae18b52b8c9eca813e": "GPL-3.0-or-later",
}

_NAMES: tuple[tuple[str, str], ...] = (
    (r"\bmit licen[cs]e\b|\blicen[cs]e\W{1,6}mit\b", "MIT"),
    (r"\bapache(?: software)? licen[cs]e,?(?: version)? 2|\bapache-2\.0\b", "Apache-2.0"),
    (r"\bcc0\b|creative commons zero", "CC0-1.0"),
    (r"\b(?:in|into|to) the public domain\b|\bpublic domain dedication\b", "LicenseRef-Public-Domain"),
    (r"\bcc[ -]by[ -]sa[ -]4|attribution-?sharealike 4", "CC-BY-SA-4.0"),
    (r"\bcc[ -]by[ -]sa[ -]3|attribution-?sharealike 3", "CC-BY-SA-3.0"),
    (r"\bcc[ -]by[ -]4|creative commons attribution 4", "CC-BY-4.0"),
    (r"\bgnu general public license\b|\bgplv?[23]\b", "GPL-3.0-or-later"),
)

_FORBIDDING = r"\b(?:do not|don'?t|not be|may not|never)\b"
_NON_COMMERCIAL = r"\bnon[ -]?commercial|\bcc[ -]by[ -]nc\b|" + _FORBIDDING + r"[^.\n]{0,30}\bcommercial(?:ly)?\b"
_NO_REPUBLISHING = (
    _FORBIDDING
    + r"[^.\n]{0,40}\b(?:re-?publish|re-?distribut|sell)|\bno ?derivatives\b|\bcc[ -]by[ -](?:nc[ -])?nd\b"
)
_SHARE_ALIKE = r"\bshare[ -]?alike\b|\bcc[ -]by(?:[ -]nc)?[ -]sa\b"
_ONLY_PERMISSION = r"\bredistribution (?:is )?permitted\b|\bwith (?:the )?permission of the (?:copyright|author)"


@dataclass(frozen=True)
class LicenceText:
    """A text that comes with data or a model: a licence file, a page, a metadata field."""

    name: str
    text: str


def find_contradiction(label: str, texts: Iterable[LicenceText]) -> str | None:
    """Compare a licence's label with the texts that come with the material.

    Returns:
        A sentence that says what contradicts the label, or None.
    """
    licence = find_licence(label)
    texts = list(texts)
    if licence is None or not texts:
        return None
    for item in texts:
        if sentence := _find_stricter_statement(licence, item):
            return sentence
    recognised = {name: recognise_licence(item.text) for item in texts for name in [item.name]}
    if any(licence.id in found for found in recognised.values()):
        return None
    other = next(((name, found) for name, found in recognised.items() if found), None)
    if other is not None:
        return f"{other[0]} is the text of {', '.join(sorted(other[1]))}, and the label says {label}."
    for item in texts:
        if re.search(_ONLY_PERMISSION, item.text, re.IGNORECASE):
            return f"{item.name} gives a permission of its own, which is not {label}."
    names = ", ".join(item.name for item in texts)
    return f"The label says {label}, and nothing in {names} does."


def recognise_licence(text: str) -> frozenset[str]:
    """Licences whose full text or name is in a text."""
    found = {_DIGESTS[digest] for digest in _digest_text(text) if digest in _DIGESTS}
    if found:
        return frozenset(found)
    return frozenset(name for pattern, name in _NAMES if re.search(pattern, text, re.IGNORECASE))


def _find_stricter_statement(licence: Licence, item: LicenceText) -> str | None:
    # The full text of the very licence is not searched: it speaks of what others may forbid.
    if licence.id in {_DIGESTS.get(digest) for digest in _digest_text(item.text)}:
        return None
    checks = (
        (licence.commercial, _NON_COMMERCIAL, "limits commercial use"),
        (licence.adaptations, _NO_REPUBLISHING, "asks that it is not republished, or not changed"),
        (licence.kind != "share-alike", _SHARE_ALIKE, "asks for the same licence"),
    )
    for allowed, pattern, effect in checks:
        if allowed and re.search(pattern, item.text, re.IGNORECASE):
            return f"{item.name} {effect}, and the label {licence.id} does not."
    return None


def _digest_text(text: str) -> Iterable[str]:
    whole = re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()
    parts = [
        whole,
        whole.partition(" end of terms and conditions")[0],
        whole.partition(" end of the terms and ")[0],
    ]
    start = whole.find("permission is hereby granted")
    if start >= 0:
        parts.append(whole[start:])
    return [digest_bytes(part.encode()) for part in parts]
