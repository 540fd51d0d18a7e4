"""Names of GGUF files: which of them are models, the parts of split ones, and their quantisations.

Sources: split names, https://github.com/ggml-org/llama.cpp/tree/master/tools/gguf-split; the rest,
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#gguf-naming-convention and the names that publishers use.
"""

import re
from collections.abc import Iterable

_PART = re.compile(r"(.+)-\d{5}-of-(?!00000)(\d{5})\.gguf")
_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$")
_BOUNDS = r"(?<![^-._/])(%s)(?=[-./])"
_QUANTISED = re.compile(_BOUNDS % r"(?:UD-)?(?:I?Q\d+|TQ\d+|MXFP\d+|NVFP\d+)(?:_[A-Z0-9]+)*", re.IGNORECASE)
_FLOAT = re.compile(_BOUNDS % r"BF16|FP?16|FP?32", re.IGNORECASE)


def is_model(name: str) -> bool:
    """Whether a file is a GGUF model or the first part of one; vision projectors (``mmproj``) are not."""
    folded = name.casefold()
    is_projector = "mmproj" in folded.rpartition("/")[2]
    return folded.endswith(".gguf") and not is_projector and not _LATER_PART.search(name)


def list_parts(name: str) -> list[str]:
    """All parts of a split GGUF in order, from 00001, given any of them; of any other file, its name."""
    match = _PART.fullmatch(name)
    if match is None:
        return [name]
    stem, total = match.groups()
    return [f"{stem}-{i:05}-of-{total}.gguf" for i in range(1, int(total) + 1)]


def parse_quantisation(name: str) -> str | None:
    """The quantisation that a file name states, as it is written there, such as ``Q4_K_M``.

    The last one of several, and of the file rather than of its folder; a type of float only without another.
    """
    folder, _, file = name.rpartition("/")
    for text in (file, f"{folder}/"):
        for pattern in (_QUANTISED, _FLOAT):
            if found := pattern.findall(text):
                return str(found[-1])
    return None


def make_display_name(stem: str, title: str | None) -> str:
    """A model's name for people: that of its file without part and quantisation, or the title in its metadata.

    Titles are often made of training runs (``Smollm2 135M 8k Lc100K Mix1 Ep2``); files are named by publishers,
    and renamed by users: a name that does not begin like the title is none of the publisher's.
    """
    name = _PART.sub(r"\1", f"{stem}.gguf").removesuffix(".gguf")
    if (quantisation := parse_quantisation(f"{name}.gguf")) is not None:
        name = name[: name.rindex(quantisation)] + name[name.rindex(quantisation) + len(quantisation) :]
    words, title_words = (re.sub(r"[-_\s]+", " ", text).strip(" .") for text in (name, title or ""))
    if title_words and not words.casefold().startswith(title_words.split()[0].casefold()):
        return title_words
    return words or stem


def match_quantisation(names: Iterable[str], wanted: str) -> list[str]:
    """Names with this quantisation, in any case; if there are none, those with the text as a part of their name.

    Parts are what hyphens, dots and slashes separate: ``Q4_K`` is no part of ``model-Q4_K_M.gguf``.
    """
    names = list(names)
    exact = [name for name in names if (parse_quantisation(name) or "").casefold() == wanted.casefold()]
    part = re.compile(rf"(?<![^-./]){re.escape(wanted)}(?=[-./])", re.IGNORECASE)
    return exact or [name for name in names if part.search(name)]
