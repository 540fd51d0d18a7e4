"""The journal: private, only added to, and whole again after a kill."""

from pathlib import Path

import pytest

from commonweight.workshop.alignment.journal import Journal, Reply
from commonweight.workshop.alignment.settings import AlignmentError

REPLIES = [Reply(0, "Rye.\nThen water.", "end_turn", 5), Reply(3, "", "too-long", asked=False)]


def test_replies_are_there_again(tmp_path: Path) -> None:
    path = tmp_path / "drafts" / "answers.jsonl"
    Journal(path).add(REPLIES)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    again = Journal(path)
    assert again.replies == {0: REPLIES[0], 3: REPLIES[1]}
    again.add([Reply(1, "Spelt", "max_tokens", 9)])
    assert sorted(Journal(path).replies) == [0, 1, 3]
    assert [Journal(path).replies[number].is_cut for number in (0, 1)] == [False, True]


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    Journal(path).add(REPLIES)
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        assert len(Journal(path).replies) == whole[:end].count(b"\n")
        assert path.read_bytes() == whole[: whole.rfind(b"\n", 0, end) + 1]


@pytest.mark.parametrize("line", [b"no json\n", b'{"number": "0"}\n', b"\xff\n"])
def test_a_damaged_journal_is_a_clear_error(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "answers.jsonl"
    Journal(path).add(REPLIES)
    path.write_bytes(line + path.read_bytes())
    with pytest.raises(AlignmentError, match=r"The file answers.jsonl of .* is damaged; remove it"):
        Journal(path)
