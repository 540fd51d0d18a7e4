"""Requests are edited before they run, and what answers refer to is still the client's own."""

import asyncio
from typing import Any

from commonweight.catalog.gguf import Gguf
from commonweight.catalog.starter import find_starter
from commonweight.messages.request import CountTokensRequest
from commonweight.prompting import Renderer, Tokenizer
from commonweight.signing import Purpose, Signer
from commonweight.turn.prepare import PromptPreparer


def document(text: str) -> dict[str, Any]:
    source = {"type": "text", "media_type": "text/plain", "data": text}
    return {"type": "document", "source": source, "citations": {"enabled": True}}


def test_documents_keep_their_numbers_when_one_is_cleared() -> None:
    path = find_starter()
    assert path is not None, "the starter extra is not installed"
    gguf = Gguf(path)
    tokenizer = Tokenizer(gguf)
    messages = []
    for i, content in enumerate(["The grass is green." * 20, "The sky is blue."]):
        call = {"type": "tool_use", "id": f"toolu_{i}", "name": "read", "input": {}}
        result = {"type": "tool_result", "tool_use_id": f"toolu_{i}", "content": [document(content)]}
        messages += [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    edit = {
        "type": "clear_tool_uses_20250919",
        "trigger": {"type": "tool_uses", "value": 1},
        "keep": {"type": "tool_uses", "value": 1},
    }
    request = CountTokensRequest.model_validate(
        {
            "model": "m",
            "messages": [{"role": "user", "content": "What is blue?"}, *messages],
            "context_management": {"edits": [edit]},
        }
    )
    ready = asyncio.run(
        PromptPreparer(Renderer(tokenizer, None), Signer(bytes(32), Purpose.THINKING_SIGNATURE)).prepare(
            request, 8192
        )
    )
    assert ready.edits is not None
    assert len(ready.edits.applied_edits) == 1
    read = b"".join(map(tokenizer.decode, ready.prompt.token_ids)).decode()
    assert "grass" not in read
    assert '<document number="1">\nThe sky is blue.' in read
    assert [document.index for document in ready.prompt.documents] == [0, 1]
    # What the model does not see, it cannot quote.
    assert ready.prompt.grammar is not None
    assert "blue" in ready.prompt.grammar
    assert "grass" not in ready.prompt.grammar
    gguf.close()
