"""An application made with LangChain, told as JSON on standard output."""

import json
from typing import Literal

from langchain_anthropic import ChatAnthropic  # type: ignore[import-not-found]
from pydantic import BaseModel


class Review(BaseModel):
    """What a reader thinks of a book."""

    verdict: Literal["good", "bad"]
    is_long: bool
    stars: Literal[1, 2, 3]  # bounds of a number would be taken out of the schema before it is sent


def main() -> None:
    """Do what such applications do."""
    model = ChatAnthropic(model="any-name", max_tokens=200, temperature=0.5, max_retries=0)
    answer = model.invoke([("system", "You are terse."), ("human", "Say hello.")])
    chunks = list(model.stream("Say hello."))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    question = "Review the dictionary."
    facts = {
        "invoke": {"text": answer.text, "usage": answer.usage_metadata, "about": answer.response_metadata},
        "stream": {"chunks": len(chunks), "text": whole.text, "usage": whole.usage_metadata},
        "tool": model.with_structured_output(Review).invoke(question).model_dump(),
        "schema": model.with_structured_output(Review, method="json_schema").invoke(question).model_dump(),
    }
    print(json.dumps(facts))  # noqa: T201


main()
