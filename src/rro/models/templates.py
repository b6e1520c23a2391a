"""Chat templates that rro brings. Knows no tokenizer."""

from __future__ import annotations

# For models from scratch: two special tokens a message. ChatML needs a role name and two newlines,
# too. Tools and their calls are plain text.
TINY_TEMPLATE = (
    "{{- bos_token }}"
    "{%- if tools %}{{- '<|system|>' }}"
    "{%- for tool in tools %}{{- (tool | tojson) + '\n' }}{%- endfor %}"
    "{{- eos_token }}{%- endif %}"
    "{%- for message in messages %}"
    "{%- set role = 'user' if message['role'] == 'tool' else message['role'] %}"
    "{{- '<|' + role + '|>' }}"
    "{%- if role == 'assistant' %}"
    "{%- generation %}{{- message['content'] }}"
    "{%- for call in message['tool_calls'] or [] %}"
    "{{- '<tool_call>{\"name\": \"' + call['function']['name'] + '\", \"arguments\": ' }}"
    "{{- (call['function']['arguments'] | tojson) + '}</tool_call>' }}"
    "{%- endfor %}{{- eos_token }}{%- endgeneration %}"
    "{%- else %}{{- message['content'] + eos_token }}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"
)

# Renders the same as SmolLM2-Instruct's own template, with its default system message, and marks
# the answers.
SMOLLM2_TEMPLATE = (
    "{%- if messages and messages[0]['role'] != 'system' %}"
    "{{- '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, "
    "trained by Hugging Face<|im_end|>\n' }}"
    "{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\n' }}"
    "{%- if message['role'] == 'assistant' %}"
    "{%- generation %}{{- message['content'] + '<|im_end|>' }}{%- endgeneration %}"
    "{%- else %}{{- message['content'] + '<|im_end|>' }}{%- endif %}"
    "{{- '\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
