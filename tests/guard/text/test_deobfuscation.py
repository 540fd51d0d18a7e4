"""A text as it is meant, however it is written."""

import base64
import codecs
import json
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonweight.guard.text.deobfuscation import MAX_VIEWS, list_views, normalise

SENTENCES = (
    "how do I open the umbrella that is in my bag, and what do I do with it",
    "please tell me which meals I can cook with the flour that was left over since last week",
    "what should we take with us when we walk through the mountains in the winter",
)
PLAIN = st.sampled_from(SENTENCES)
DIGITS = str.maketrans("oieast", "013457")
CYRILLIC = str.maketrans("oaecp", "оаеср")


def swap_letters(text: str, seed: int = 0) -> str:
    """Swap two letters inside every word of four letters and more."""
    draw = random.Random(seed)
    words = []
    for word in text.split():
        if len(word) > 3:
            at = draw.randrange(1, len(word) - 2)
            words.append(word[:at] + word[at + 1] + word[at] + word[at + 2 :])
        else:
            words.append(word)
    return " ".join(words)


WRITINGS: dict[str, Callable[[str], str]] = {
    "full width": lambda text: "".join(chr(ord(one) + 0xFEE0) if one.isalpha() else one for one in text),
    "zero width": "\u200b".join,
    "tags between": "\U000e0041".join,
    "look-alikes": lambda text: text.translate(CYRILLIC),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 in lines": lambda text: base64.encodebytes(text.encode() * 1).decode(),
    "base64 twice": lambda text: base64.b64encode(base64.b64encode(text.encode())).decode(),
    "hex": lambda text: text.encode().hex(),
    "hex, spaced": lambda text: text.encode().hex(" "),
    "URL": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "URL, in part": lambda text: text.replace(" ", "%20"),
    "HTML": lambda text: "".join(f"&#{ord(one)};" for one in text),
    "escapes": lambda text: "".join(f"\\u{ord(one):04x}" for one in text),
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "reversed": lambda text: text[::-1],
    "words reversed": lambda text: " ".join(word[::-1] for word in text.split()),
    "digits": lambda text: text.translate(DIGITS),
    "spaced": lambda text: " ".join(text.replace(" ", "")),
    "spaced words": lambda text: "   ".join(" ".join(word) for word in text.split()),
    "dots between": lambda text: ".".join(one for one in text if one.isalpha()),
    "lines": lambda text: "\n".join(text.split()),
    "case by turns": lambda text: "".join(one.upper() if i % 2 else one.lower() for i, one in enumerate(text)),
    "capitals": str.upper,
    "accents": lambda text: text.translate(str.maketrans("aeio", "àéîö")),
    "swapped": swap_letters,
    "base64 of rot13": lambda text: base64.b64encode(codecs.encode(text, "rot13").encode()).decode(),
}
ORDINARY = (
    *SENTENCES,
    "def add(x, y):\n    return [x + y for _ in range(10) if x != None]\n\nclass A_b(object):\n    pass\n",
    "SELECT a, b FROM t WHERE x = 1 AND y > 2 ORDER BY z;",
    "| a | b | c |\n|---|---|---|\n| 1 | 2 | 3 |\n| 4 | 5 | 6 |",
    json.dumps({"id": "5d41402abc4b2a76b9719d911017c592", "values": [1, 2, 3], "name": "x_y", "is": [True, None]}),
    "![image](data:image/png;base64," + base64.b64encode(random.Random(7).randbytes(3000)).decode() + ")",
    "The hash is 5d41402abc4b2a76b9719d911017c592 and the id dGhpcw==, on port 8080 of 192.168.0.1.",
    "Wie öffne ich den Regenschirm, der in meiner Tasche liegt? Ich weiß es nicht, und über alles auch nicht.",
    "我怎么打开包里的雨伞，然后怎么用它？我不知道，请告诉我。（谢谢）",
    "雨が降っています。傘を開く方法を教えてください。",
    "Как открыть зонт, который лежит в моей сумке? Я не знаю, что с ним делать.",
    "كيف أفتح المظلة الموجودة في حقيبتي؟",
    "Comment ouvrir le parapluie qui est dans mon sac ? Où est la clé, et à quelle heure déjà ?",
    "- milk\n- bread\n- 3 eggs\n- 200 g of butter\n- salt",
    "if x > 3:\n\tprint('A1', B2, c3)  # see https://example.org/a%20b?q=1&r=2\n",
    "E = m c^2, where x_1 + y_2 = z_3 and a b c d are numbers",
    "OK, the USB-C port of the HP 15s-fq5xxx has 4k60, and the 2nd one 3.1 Gen1.",
)


@pytest.mark.parametrize("name", WRITINGS)
@given(meant=PLAIN)
def test_a_plain_sentence_is_found_in_every_disguise(name: str, meant: str) -> None:
    written = WRITINGS[name](meant)
    found = [view for view in list_views(written) if fold(meant) in fold(view.text)]
    assert found, (name, [view.text for view in list_views(written)])
    assert any(view.kind != "plain" for view in found)


@pytest.mark.parametrize("name", WRITINGS)
def test_a_disguised_part_is_located_in_the_text_as_it_was_given(name: str) -> None:
    written = WRITINGS[name](SENTENCES[0])
    before, after = (
        "We were at the lake, where it had rained all day.\n\n",
        "\n\nThank you for all that you do for me.",
    )
    if name in ("lines", "case by turns", "capitals", "digits", "accents", "swapped"):
        before = after = ""  # those are ways to write a whole text
    views = list_views(before + written + after)
    view = next(one for one in views if one.kind != "plain" and "umbrella" in fold(one.text))
    at = view.text.lower().index("umbrella")
    start, end = view.locate(at, at + len("umbrella"))
    assert len(before) <= start < end <= len(before) + len(written)


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_has_no_other_view(text: str) -> None:
    assert [view.kind for view in list_views(text)] == ["plain"]


@given(st.text(max_size=400))
def test_any_text_has_few_views_with_places_inside_it(text: str) -> None:
    views = list_views(text)
    assert 1 <= len(views) <= MAX_VIEWS + 1
    for view in views:
        assert len(view.text) == len(view.starts) == len(view.ends)
        start, end = view.locate(0, len(view.text))
        assert 0 <= start <= end <= len(text)


@given(st.text(st.characters(max_codepoint=127), max_size=300))
def test_ascii_is_normal(text: str) -> None:
    assert normalise(text).text == text


def test_places_go_through_two_steps() -> None:
    inner = codecs.encode(SENTENCES[0], "rot13")
    written = "Read this: " + base64.b64encode(inner.encode()).decode()
    view = next(one for one in list_views(written) if "umbrella" in one.text)
    assert view.kind == "rot13"
    assert view.locate(0, 3) == (len("Read this: "), len(written))


def fold(text: str) -> str:
    """The letters of a text: what is left of it in every disguise."""
    return "".join(one for one in text.lower() if one.isalpha())
