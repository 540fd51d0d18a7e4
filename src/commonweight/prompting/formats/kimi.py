"""Format of Kimi K2: calls in a section, numbered through the conversation.

Source: https://huggingface.co/moonshotai/Kimi-K2-Instruct
"""

from commonweight.prompting.formats.syntax import NUMBER, ToolCallFormat

KIMI = ToolCallFormat(
    name="kimi",
    trigger="<|tool_calls_section_begin|>",
    opening="<|tool_calls_section_begin|>",
    before_name="<|tool_call_begin|>functions.",
    before_input=f":{NUMBER}<|tool_call_argument_begin|>",
    after_input="<|tool_call_end|>",
    closing="<|tool_calls_section_end|>",
)
