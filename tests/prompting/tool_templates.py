"""Chat templates of families that call tools.

They are written for these tests; each does what well-known ones of its name do to messages, calls and reasoning.
"""

QWEN_3 = """\
{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\n\n' }}{% endif %}
    {{- '# Tools\n\n<tools>' }}
    {%- for tool in tools %}{{- '\n' + tool | tojson }}{% endfor %}
    {{- '\n</tools><|im_end|>\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(last=messages | length - 1, searching=true) %}
{%- for message in messages[::-1] %}
    {%- if ns.searching and message.role == 'user' and not (message.content.startswith('<tool_response>')
            and message.content.endswith('</tool_response>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last = messages | length - loop.index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\n' }}
        {%- if loop.index0 > ns.last and reasoning %}
            {{- '<think>\n' + reasoning.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}
            {{- content }}
        {%- endif %}
        {%- for call in message.tool_calls or [] %}
            {%- if content or not loop.first %}{{- '\n' }}{% endif %}
            {{- '<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson }}
            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == 'tool' %}
        {%- if messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{% endif %}
        {{- '\n<tool_response>\n' + content + '\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\n' }}{% endif %}
    {%- elif message.role == 'user' or not loop.first %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and not enable_thinking %}{{- '<think>\n\n</think>\n\n' }}{% endif %}
{%- endif %}"""

LLAMA_31 = """\
{{- bos_token }}
{%- if messages[0].role == 'system' %}
    {%- set instructions = messages[0].content | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set instructions = '' %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\n\n' + instructions + '<|eot_id|>' }}
{%- if tools is not none %}
    {{- '<|start_header_id|>user<|end_header_id|>\n\nRespond with {"name": ..., "parameters": ...}.\n\n' }}
    {%- for tool in tools %}{{- tool | tojson(indent=4) + '\n\n' }}{% endfor %}
    {{- messages[0].content | trim + '<|eot_id|>' }}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- for message in messages %}
    {%- if 'tool_calls' in message %}
        {%- if message.tool_calls | length != 1 %}{{- raise_exception('one call at a time') }}{% endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "' + call.name + '", "parameters": ' }}
        {{- call.arguments | tojson + '}<|eot_id|>' }}
    {%- elif message.role == 'tool' %}
        {{- '<|start_header_id|>ipython<|end_header_id|>\n\n' + message.content | tojson + '<|eot_id|>' }}
    {%- else %}
        {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content | trim }}
        {{- '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""

MISTRAL_NEMO = """\
{%- if messages[0].role == 'system' %}
    {%- set instructions = messages[0].content %}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- set users = messages | selectattr('role', 'equalto', 'user') | list %}
{%- set ns = namespace(said=0) %}
{%- for message in messages if not (message.role == 'tool' or message.tool_calls) %}
    {%- if (message.role == 'user') != (ns.said % 2 == 0) %}{{- raise_exception('must alternate') }}{% endif %}
    {%- set ns.said = ns.said + 1 %}
{%- endfor %}
{{- bos_token }}
{%- if instructions is defined %}{{- '[SYSTEM_PROMPT]' + instructions + '[/SYSTEM_PROMPT]' }}{% endif %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {%- if tools is not none and message == users[-1] %}
            {{- '[AVAILABLE_TOOLS]' + tools | tojson + '[/AVAILABLE_TOOLS]' }}
        {%- endif %}
        {{- '[INST]' + message.content + '[/INST]' }}
    {%- elif message.tool_calls %}
        {{- '[TOOL_CALLS][' }}
        {%- for call in message.tool_calls %}
            {%- if call.id | length != 9 %}{{- raise_exception('ids have 9 letters') }}{% endif %}
            {{- (call.function | tojson)[:-1] + ', "id": "' + call.id + '"}' + (', ' if not loop.last else ']') }}
        {%- endfor %}
        {{- eos_token }}
    {%- elif message.role == 'assistant' %}
        {{- message.content + eos_token }}
    {%- else %}
        {%- if message.tool_call_id | length != 9 %}{{- raise_exception('ids have 9 letters') }}{% endif %}
        {{- '[TOOL_RESULTS]{"content": ' + message.content | string + ', "call_id": "' + message.tool_call_id }}
        {{- '"}[/TOOL_RESULTS]' }}
    {%- endif %}
{%- endfor %}"""

MINISTRAL = """\
{{- bos_token }}
{%- if messages[0].role == 'system' %}
    {{- '[SYSTEM_PROMPT]' + messages[0].content + '[/SYSTEM_PROMPT]' }}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- if tools %}{{- '[AVAILABLE_TOOLS]' + tools | tojson + '[/AVAILABLE_TOOLS]' }}{% endif %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {{- '[INST]' + message.content + '[/INST]' }}
    {%- elif message.role == 'assistant' %}
        {%- if message.content is string %}
            {{- message.content }}
        {%- else %}
            {%- for block in message.content %}
                {{- block.text if block.type == 'text' else '[THINK]' + block.thinking + '[/THINK]' }}
            {%- endfor %}
        {%- endif %}
        {%- for call in message.tool_calls or [] %}
            {{- '[TOOL_CALLS]' + call.function.name + '[ARGS]' + call.function.arguments | tojson }}
        {%- endfor %}
        {{- eos_token }}
    {%- elif message.role == 'tool' %}
        {{- '[TOOL_RESULTS]' + message.content + '[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception('no such role: ' + message.role) }}
    {%- endif %}
{%- endfor %}"""

DEEPSEEK_31 = """\
{%- set thinking = thinking is defined and thinking %}
{%- set ns = namespace(system='', follows_user=false, follows_tool=false) %}
{%- for message in messages if message.role == 'system' %}
    {%- set ns.system = ns.system + ('\n\n' if ns.system else '') + message.content %}
{%- endfor %}
{{- bos_token + ns.system }}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {{- '<\uff5cUser\uff5c>' + message.content }}
        {%- set ns.follows_user = true %}
    {%- elif message.role == 'assistant' %}
        {%- if ns.follows_user %}{{- '<\uff5cAssistant\uff5c></think>' }}{% endif %}
        {%- set ns.follows_user = false %}
        {{- message.content }}
        {%- for call in message.tool_calls or [] %}
            {%- if loop.first %}{{- '<\uff5ctool▁calls▁begin\uff5c>' }}{% endif %}
            {{- '<\uff5ctool▁call▁begin\uff5c>' + call.function.name }}
            {{- '<\uff5ctool▁sep\uff5c>' + call.function.arguments | tojson }}
            {{- '<\uff5ctool▁call▁end\uff5c>' + ('<\uff5ctool▁calls▁end\uff5c>' if loop.last else '') }}
        {%- endfor %}
        {{- '<\uff5cend▁of▁sentence\uff5c>' }}
    {%- elif message.role == 'tool' %}
        {{- '<\uff5ctool▁output▁begin\uff5c>' + message.content + '<\uff5ctool▁output▁end\uff5c>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt and ns.follows_user %}
    {{- '<\uff5cAssistant\uff5c>' + ('<think>' if thinking else '</think>') }}
{%- endif %}"""

GLM_46 = """\
[gMASK]<sop>
{%- if tools %}
    {{- '<|system|>\n# Tools\n\n<tools>\n' }}
    {%- for tool in tools %}{{- tool | tojson + '\n' }}{% endfor %}
    {{- '</tools>' }}
{%- endif %}
{%- set ns = namespace(last=-1) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {%- set reasoning = message.reasoning_content or '' if loop.index0 > ns.last else '' %}
        {{- '<|assistant|>\n<think>' + reasoning.strip() + '</think>' }}
        {%- if message.content.strip() %}{{- '\n' + message.content.strip() }}{% endif %}
        {%- for call in message.tool_calls or [] %}
            {{- '\n<tool_call>' + call.function.name + '\n' }}
            {%- for key, value in call.function.arguments.items() %}
                {{- '<arg_key>' + key + '</arg_key>\n<arg_value>' }}
                {{- (value if value is string else value | tojson) + '</arg_value>\n' }}
            {%- endfor %}
            {{- '</tool_call>' }}
        {%- endfor %}
    {%- elif message.role == 'tool' %}
        {%- if messages[loop.index0 - 1].role != 'tool' %}{{- '<|observation|>' }}{% endif %}
        {{- '\n<tool_response>\n' + message.content + '\n</tool_response>' }}
    {%- else %}
        {{- '<|' + message.role + '|>\n' + message.content }}
        {%- if message.role == 'user' and enable_thinking is defined and not enable_thinking %}
            {{- '' if message.content.endswith('/nothink') else '/nothink' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>' + ('\n<think></think>' if enable_thinking is defined and not enable_thinking else '') }}
{%- endif %}"""

HARMONY = """\
{%- macro kind(schema) %}
    {%- if schema.type == 'array' %}{{- kind(schema['items'] or {}) + '[]' }}
    {%- elif schema.type == 'object' %}
        {{- '{' }}
        {%- for name, inner in (schema.properties or {}).items() %}
            {{- '\n// ' + inner.description if inner.description }}
            {{- '\n' + name + ('' if name in (schema.required or []) else '?') + ': ' + kind(inner) + ',' }}
        {%- endfor %}
        {{- '\n}' }}
    {%- elif schema.enum %}{{- '"' + schema.enum | join('" | "') + '"' }}
    {%- elif schema.type is string %}{{- 'number' if schema.type in ['number', 'integer'] else schema.type }}
    {%- else %}{{- 'any' }}{%- endif %}
{%- endmacro %}
{{- '<|start|>system<|message|>Reasoning: ' + (reasoning_effort or 'medium') + '<|end|>' }}
{%- if messages[0].role == 'system' %}
    {%- set instructions = messages[0].content %}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- if instructions or tools %}
    {{- '<|start|>developer<|message|># Instructions\n\n' + (instructions or '') + '\n\n' }}
    {%- for tool in tools or [] %}
        {{- '// ' + tool.function.description + '\ntype ' + tool.function.name + ' = (_: ' }}
        {{- kind(tool.function.parameters) + ') => any;\n\n' }}
    {%- endfor %}
    {{- '<|end|>' }}
{%- endif %}
{%- set ns = namespace(name='') %}
{%- for message in messages %}
    {%- if message.role == 'assistant' and 'tool_calls' in message %}
        {%- set later = messages[loop.index:] | selectattr('role', 'equalto', 'assistant')
            | rejectattr('tool_calls', 'defined') | list %}
        {%- if message.content and message.thinking %}{{- raise_exception('not both') }}{% endif %}
        {%- if (message.thinking or message.content) and not later %}
            {{- '<|start|>assistant<|channel|>analysis<|message|>' }}
            {{- (message.thinking or message.content) + '<|end|>' }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {%- set ns.name = call.name %}
        {{- '<|start|>assistant to=functions.' + call.name + '<|channel|>commentary json<|message|>' }}
        {{- call.arguments | tojson + '<|call|>' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|start|>assistant<|channel|>final<|message|>' + message.content + '<|end|>' }}
    {%- elif message.role == 'tool' %}
        {{- '<|start|>functions.' + ns.name + ' to=assistant<|channel|>commentary<|message|>' }}
        {{- message.content | tojson + '<|end|>' }}
    {%- elif message.role == 'user' %}
        {{- '<|start|>user<|message|>' + message.content + '<|end|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{% endif %}"""

QWEN_CODER = """\
{%- macro others(values, known) %}
    {%- for key in values if key not in known %}
        {{- '\n<' + key + '>' + (values[key] if values[key] is string else values[key] | tojson) }}
        {{- '</' + key + '>' }}
    {%- endfor %}
{%- endmacro %}
{%- set instructions = messages[0].content if messages[0].role == 'system' else '' %}
{%- set messages = messages[1:] if messages[0].role == 'system' else messages %}
{%- if instructions or tools %}
    {{- '<|im_start|>system\n' + instructions }}
    {%- for tool in tools or [] %}
        {%- set tool = tool.function %}
        {{- '\n<function>\n<name>' + tool.name + '</name>\n<description>' + tool.description | trim }}
        {{- '</description>\n<parameters>' }}
        {%- for name, fields in (tool.parameters.properties or {}) | items %}
            {{- '\n<parameter>\n<name>' + name + '</name>' }}
            {%- if fields.type %}{{- '\n<type>' + fields.type | string + '</type>' }}{% endif %}
            {{- others(fields, ['name', 'type']) + '\n</parameter>' }}
        {%- endfor %}
        {{- others(tool.parameters, ['type', 'properties']) + '\n</parameters>\n</function>' }}
    {%- endfor %}
    {{- '<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.tool_calls %}
        {{- '<|im_start|>assistant\n' + (message.content | trim + '\n' if message.content | trim else '') }}
        {%- for call in message.tool_calls %}
            {{- '\n' if message.content | trim or not loop.first }}
            {{- '<tool_call>\n<function=' + call.function.name + '>\n' }}
            {%- for key, value in call.function.arguments | items %}
                {{- '<parameter=' + key + '>\n' + (value if value is string else value | tojson) }}
                {{- '\n</parameter>\n' }}
            {%- endfor %}
            {{- '</function>\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.previtem and loop.previtem.role != 'tool' %}{{- '<|im_start|>user\n' }}{% endif %}
        {{- '<tool_response>\n' + message.content + '\n</tool_response>\n' }}
        {%- if loop.last or loop.nextitem.role != 'tool' %}{{- '<|im_end|>\n' }}{% endif %}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{% endif %}"""

QWEN_35 = (
    """\
{%- set ns = namespace(asked=false) %}
{%- for message in messages if message.role == 'user' and not (message.content.startswith('<tool_response>')
        and message.content.endswith('</tool_response>')) %}
    {%- set ns.asked = true %}
{%- endfor %}
{%- if not ns.asked %}{{- raise_exception('No user query found in messages.') }}{% endif %}
{%- if messages[1:] | selectattr('role', 'equalto', 'system') | list %}
    {{- raise_exception('System message must be at the beginning.') }}
{%- endif %}
"""
    + QWEN_CODER
)

KIMI = """\
{%- if tools %}{{- '<|im_system|>tool_declare<|im_middle|>' + tools | tojson + '<|im_end|>' }}{% endif %}
{%- set ns = namespace(calls=0) %}
{%- for message in messages %}
    {%- set kind = message.role if message.role in ['user', 'assistant'] else 'system' %}
    {{- '<|im_' + kind + '|>' + message.role + '<|im_middle|>' }}
    {%- if message.role == 'tool' %}{{- '## Return of ' + message.tool_call_id + '\n' }}{% endif %}
    {{- message.content }}
    {%- for call in message.tool_calls or [] %}
        {%- if loop.first %}{{- '<|tool_calls_section_begin|>' }}{% endif %}
        {{- '<|tool_call_begin|>' + call.id + '<|tool_call_argument_begin|>' }}
        {{- call.function.arguments | tojson + '<|tool_call_end|>' }}
        {%- if loop.last %}{{- '<|tool_calls_section_end|>' }}{% endif %}
    {%- endfor %}
    {{- '<|im_end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_assistant|>assistant<|im_middle|>' }}{% endif %}"""

MINIMAX = """\
{{- ']~!b[]~b]system\n' + (messages[0].content if messages[0].role == 'system' else 'Help.') }}
{%- for tool in tools or [] %}{{- '\n<tool>' + tool.function | tojson + '</tool>' }}{% endfor %}
{{- '[e~[\n' }}
{%- set messages = messages[1:] if messages[0].role == 'system' else messages %}
{%- set ns = namespace(last=-1) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- ']~b]ai\n' }}
        {%- if message.reasoning_content and loop.index0 > ns.last %}
            {{- '<think>\n' + message.reasoning_content + '\n</think>\n\n' }}
        {%- endif %}
        {{- message.content }}
        {%- for call in message.tool_calls or [] %}
            {%- if loop.first %}{{- '\n<minimax:tool_call>\n' }}{% endif %}
            {{- '<invoke name="' + call.function.name + '">\n' }}
            {%- for key, value in call.function.arguments.items() %}
                {{- '<parameter name="' + key + '">' + (value if value is string else value | tojson) }}
                {{- '</parameter>\n' }}
            {%- endfor %}
            {{- '</invoke>\n' + ('</minimax:tool_call>' if loop.last else '') }}
        {%- endfor %}
        {{- '[e~[\n' }}
    {%- elif message.role == 'tool' %}
        {%- if messages[loop.index0 - 1].role != 'tool' %}{{- ']~b]tool' }}{% endif %}
        {{- '\n<response>' + message.content + '</response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '[e~[\n' }}{% endif %}
    {%- elif message.role == 'user' %}
        {{- ']~b]user\n' + message.content + '[e~[\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- ']~b]ai\n<think>\n' }}{% endif %}"""
