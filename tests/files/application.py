"""A client application that works with files: what it does with the SDK it finds, as JSON on standard output.

``test_files_with_sdks.py`` runs it with each SDK. The old one knows the beta only.
"""

import json
import sys
from typing import Any

import anthropic

OLD = not hasattr(anthropic.Anthropic, "files")
MODEL = "claude-opus-5-5"


def main() -> None:
    """Work with files, and tell what happened."""
    with anthropic.Anthropic(max_retries=0, _strict_response_validation=True) as client:
        kinds: dict[str, Any] = {"beta": client.beta.files}
        if not OLD:
            kinds["ga"] = client.files
        facts = {kind: use(files) for kind, files in kinds.items()}
        facts["version"] = {"version": anthropic.__version__}
        facts["asked"] = ask(client)
    json.dump(facts, sys.stdout)


def use(files: Any) -> dict[str, Any]:
    """Everything that there is for files."""
    made = [files.upload(file=(f"{i}.txt", f"text {i}".encode(), "text/plain")) for i in range(3)]
    if not OLD:
        made.append(files.upload(file=("brief.txt", b"brief"), expires_in_seconds=3600))
    found = files.retrieve_metadata(made[0].id)
    listed = [file.id for file in files.list(limit=2)]
    content = files.download(made[0].id).read().decode()
    deleted = [files.delete(file.id).model_dump(mode="json") for file in made]
    return {
        "made": [file.model_dump(mode="json") for file in made],
        "found": found.model_dump(mode="json"),
        "listed": listed,
        "content": content,
        "deleted": deleted,
        "left": [file.id for file in files.list()],
        "errors": [
            failure(lambda: files.retrieve_metadata(made[0].id)),
            failure(lambda: files.upload(file=("a?b.txt", b"x"))),
            failure(lambda: files.upload(file=("large.txt", b"x" * 200_000))),
        ],
    }


def ask(client: anthropic.Anthropic) -> dict[str, Any]:
    """A question about a document that was uploaded."""
    file = client.beta.files.upload(file=("sky.txt", b"The grass is green. The sky is blue.", "text/plain"))
    message = client.beta.messages.create(
        model=MODEL,
        max_tokens=100,
        betas=["files-api-2025-04-14"],
        messages=[
            {
                "role": "user",
                "content": [
                    {
                        "type": "document",
                        "source": {"type": "file", "file_id": file.id},
                        "citations": {"enabled": True},
                    },
                    {"type": "text", "text": "What is blue?"},
                ],
            }
        ],
    )
    client.beta.files.delete(file.id)
    return {"file": file.id, "message": message.model_dump(mode="json")}


def failure(call: Any) -> dict[str, Any]:
    """The exception that the SDK makes of an error."""
    try:
        call()
    except anthropic.APIStatusError as error:
        return {"class": type(error).__name__, "status": error.status_code, "body": error.body}
    return {"class": None}


main()
