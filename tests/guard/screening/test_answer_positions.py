"""Where a verdict on an answer points to."""

from commonweight.guard.screening.answer_positions import AnswerPiece, AnswerPositions


def written() -> AnswerPositions:
    positions = AnswerPositions()
    positions.add(0, [AnswerPiece(0, "I look")])
    positions.add(1, [])
    positions.add(2, [AnswerPiece(0, " it up."), AnswerPiece(1, '{"ci', "weather")])
    positions.add(3, [AnswerPiece(1, 'ty": "Ber', "weather")])
    positions.add(4, [AnswerPiece(1, 'gen"}', "weather")])
    return positions


def test_tokens_are_located_in_the_last_block_that_they_wrote_to() -> None:
    positions = written()
    assert positions.locate_tokens(0, 1)[:3] == ("content[0]", (0, 6), None)
    assert positions.locate_tokens(0, 2)[:3] == ("content[0]", (0, 6), None)
    assert positions.locate_tokens(0, 4)[:3] == ("content[1]", (0, 13), "weather")
    assert positions.locate_tokens(3, 5)[:3] == ("content[1]", (4, 18), "weather")


def test_tokens_without_text_have_no_span() -> None:
    assert AnswerPositions().locate_tokens(0, 3) == ("content[0]", None, None, None)
    assert written().locate_tokens(1, 2).span is None


def test_characters_of_all_the_text_are_located_in_their_block() -> None:
    positions = written()
    everything = 'I look it up.{"city": "Bergen"}'
    start = everything.index("Bergen")
    found = positions.locate_characters(start, start + 6)
    assert found[:3] == ("content[1]", (start - 13, start - 7), "weather")
    assert positions.locate_characters(2, 6)[:2] == ("content[0]", (2, 6))
    assert positions.locate_characters(2, 20)[:2] == ("content[1]", (0, 7))
