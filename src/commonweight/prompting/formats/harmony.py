"""Format of gpt-oss (Harmony): each message of an answer names its channel; a call ends the turn.

Source: https://cookbook.openai.com/articles/openai-harmony
"""

from commonweight.prompting.formats.syntax import Tags, ToolCallFormat

HARMONY = ToolCallFormat(
    name="harmony",
    trigger="<|channel|>commentary to=functions.",
    before_name="<|channel|>commentary to=functions.",
    rendered_before_name=" to=functions.",
    before_input=" <|constrain|>json<|message|>",
    after_input="",
    thinking=Tags("<|channel|>analysis<|message|>", "<|end|>"),
    text_openings=("<|channel|>final<|message|>", "<|channel|>commentary<|message|>"),
    after_text="<|end|>",
    glue="<|start|>assistant",
    takes_one_call=True,
)
