"""Tokens as blocks compare them."""

from hypothesis import given
from hypothesis import strategies as st

from commonweight.engines.llama.kv.blocks import count_common_tokens, encode_key


@given(st.lists(st.integers(0, 2), max_size=9), st.lists(st.integers(0, 2), max_size=9))
def test_common_tokens(one: list[int], other: list[int]) -> None:
    expected = next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    assert count_common_tokens(encode_key(one), encode_key(other)) == expected


def test_tokens_that_share_bytes_are_not_the_same() -> None:
    assert count_common_tokens(encode_key([0x010203]), encode_key([0x010204])) == 0
