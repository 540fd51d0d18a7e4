"""The multilingual encoder: what means the same is near in every language that it reads."""

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from commonweight.guard.encoders.arrays import Floats
from commonweight.guard.encoders.encoder import EncoderMissingError
from commonweight.guard.encoders.fair_lock import FairLock
from commonweight.guard.encoders.multilingual import (
    LANGUAGES,
    WIDTH,
    MultilingualEncoder,
    load_multilingual_encoder,
)
from commonweight.guard.text.languages import identify_language

try:
    load_multilingual_encoder()
except EncoderMissingError:
    pytest.skip("the multilingual encoder's weights are not installed", allow_module_level=True)

ENGLISH, OTHER = "How do I bake a loaf of rye bread?", "The court ruled on Friday that the bridge stays closed."
SAME = (
    "Wie backe ich ein Roggenbrot?",
    "Comment faire un pain de seigle ?",
    "如何烤黑麦面包？",
    "كيف أخبز خبز الجاودار؟",
)


@pytest.fixture(scope="module")
def encoder() -> MultilingualEncoder:
    return load_multilingual_encoder()


def test_translations_are_nearer_than_other_texts(encoder: MultilingualEncoder) -> None:
    asked, other, *same = encoder.embed([ENGLISH, OTHER, *SAME])
    assert min(float(asked @ one) for one in same) > float(asked @ other) + 0.4


def test_vectors_are_those_that_the_wheel_computes(encoder: MultilingualEncoder) -> None:
    # By the wheel's own code.
    vector = encoder.embed(["How do I bake bread?"])[0]
    assert np.abs(vector[:4] - np.array([0.00377, 0.01007, -0.05479, -0.00468])).max() < 1e-4


def test_a_vector_does_not_depend_on_the_company(encoder: MultilingualEncoder) -> None:
    texts = ["Rain.", "", "A much longer sentence about the weather in the north.", "word " * 3000, "雨"]
    together = encoder.embed(texts)
    assert together.shape == (len(texts), WIDTH)
    for text, vector in zip(texts, together, strict=True):
        assert np.abs(encoder.embed([text])[0] - vector).max() < 1e-4
        assert abs(float(np.linalg.norm(vector)) - 1) < 1e-3


def test_between_the_batches_of_a_long_text_others_have_their_turn() -> None:
    class Observed(MultilingualEncoder):
        def __init__(self) -> None:
            vars(self).update(vars(load_multilingual_encoder()))
            self._lock = FairLock()
            self.batches: list[int] = []

        def _run(self, texts: Sequence[Sequence[int]]) -> Floats:
            self.batches.append(sum(len(text) for text in texts))
            return super()._run(texts)

    encoder = Observed()
    long = threading.Thread(target=encoder.embed, args=(["word " * 400] * 8,))
    short = threading.Thread(target=encoder.embed, args=(["Rain."],))
    with encoder._lock:
        for waiting, thread in enumerate((long, short), 1):
            thread.start()
            while encoder._lock.waiting < waiting:
                threading.Event().wait(0.001)
    long.join()
    short.join()
    assert len(encoder.batches) == 5
    assert encoder.batches.index(min(encoder.batches)) == 1


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (ENGLISH, "en"),
        ("Wie backe ich ein Roggenbrot, und wie lange muss der Teig vorher gehen?", "de"),
        ("如何在家里烤一个黑麦面包？面团要发酵多久？", "zh"),
        ("Làm thế nào để nướng một ổ bánh mì lúa mạch đen ở nhà?", "vi"),
        ("Rye?", None),
        ("", None),
        ("12345 67890 !!! ???", None),
    ],
)
def test_languages_are_told_where_they_are_plain(text: str, language: str | None) -> None:
    assert identify_language(text) == language


def test_vietnamese_is_none_that_the_encoder_reads() -> None:
    assert "vi" not in LANGUAGES
