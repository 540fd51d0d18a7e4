"""Conversations in inspect-ai's types. Imports it: for use inside of its tasks only."""

from collections.abc import Sequence

from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageTool, ChatMessageUser
from inspect_ai.tool import ToolCall, ToolInfo, ToolParam, ToolParams

from commonweight.workshop.evals.conversations import Conversation, Tool

CALL_ID = "toolu_01"


def make_input(conversation: Conversation) -> list[ChatMessage]:
    """The messages of a conversation, a tool loop as blocks ``tool_use`` and ``tool_result``."""
    messages: list[ChatMessage] = [ChatMessageUser(content=conversation.user)]
    if conversation.call is not None:
        call = ToolCall(id=CALL_ID, function=conversation.call.tool, arguments=dict(conversation.call.arguments))
        messages += [
            ChatMessageAssistant(content=[], tool_calls=[call]),
            ChatMessageTool(
                content=conversation.call.result, tool_call_id=CALL_ID, function=conversation.call.tool
            ),
        ]
    if conversation.beginning:
        messages.append(ChatMessageAssistant(content=conversation.beginning))
    return messages


def make_tools(tools: Sequence[Tool]) -> list[ToolInfo]:
    """Definitions of tools that are offered and never run."""
    return [
        ToolInfo(
            name=tool.name,
            description=tool.description,
            parameters=ToolParams(
                properties={
                    name: ToolParam(type="string", description=description)
                    for name, description in tool.parameters.items()
                },
                required=list(tool.parameters),
            ),
        )
        for tool in tools
    ]
