"""Input that the guard screens: the last user turn with its tool results. Earlier turns were screened before."""

from dataclasses import dataclass

from commonweight.charter.principle import Place
from commonweight.messages.content import DocumentBlock, SearchResultBlock, TextBlock, TextSource, ToolResultBlock
from commonweight.messages.request import MessageRequest


@dataclass(frozen=True)
class ScreenedInput:
    """Texts of the input of one exchange."""

    user_text: str
    """By the user, since the assistant last spoke."""
    results: tuple[str, ...]
    """Of tools, and documents: what others wrote."""

    def group_by_place(self) -> dict[Place, list[str]]:
        """Group the texts by their places, in their order."""
        return {"input": [self.user_text], "tool_result": list(self.results)}


def extract_input(request: MessageRequest) -> ScreenedInput:
    """Extract the part of a request that is new in this exchange."""
    said: list[str] = []
    results: list[str] = []
    for message in reversed(request.messages):
        if message.role == "assistant":
            if said or results:
                break
            continue  # the client has begun the answer
        if message.role != "user":
            continue
        for block in reversed(message.content):
            match block:
                case TextBlock():
                    said.append(block.text)
                case ToolResultBlock():
                    results += [part.text for part in block.content if isinstance(part, TextBlock)]
                case SearchResultBlock():
                    results += [part.text for part in block.content]
                case DocumentBlock(source=TextSource(data=data)):
                    results.append(data)
                case _:
                    pass
    return ScreenedInput("\n\n".join(reversed(said)), tuple(reversed(results)))
