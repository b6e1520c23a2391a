"""Tokenizers with tool templates of several families, and what an agent writes in them."""

import re
from pathlib import Path

import trl
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from rro.environments.tools import declare
from rro.models.templates import TINY_TEMPLATE
from rro.tool_calls import tool_calls
from rro.types import Message, Source

FOLDER = Path(trl.__file__).parent / "chat_templates"
# The form of Mistral's first tool templates, which want ids of nine letters and digits.
MISTRAL = (
    "{{- bos_token }}"
    "{%- if tools %}{{- '[AVAILABLE_TOOLS] ' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}"
    "{%- endif %}"
    "{%- for message in messages %}"
    "{%- if message['role'] == 'user' %}{{- '[INST] ' + message['content'] + '[/INST]' }}"
    "{%- elif message['role'] == 'tool' %}"
    "{{- '[TOOL_RESULTS] {\"content\": ' + (message.content | tojson) }}"
    "{%- if message.tool_call_id | length != 9 %}{{- raise_exception('nine letters') }}{%- endif %}"
    "{{- ', \"call_id\": \"' + message.tool_call_id + '\"}[/TOOL_RESULTS]' }}"
    "{%- elif message.tool_calls %}{{- '[TOOL_CALLS] [' }}"
    "{%- for call in message.tool_calls %}"
    '{{- \'{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{- (call.function.arguments | tojson) + '}' }}"
    "{%- if not loop.last %}{{- ', ' }}{%- endif %}{%- endfor %}{{- ']' + eos_token }}"
    "{%- else %}{{- ' ' + message['content'] + eos_token }}{%- endif %}"
    "{%- endfor %}"
)
QWEN_XML = (
    "{%- if tools %}{{- '<|im_start|>system\n' }}{%- for tool in tools %}{{- tool | tojson }}"
    "{%- endfor %}{{- '<|im_end|>\n' }}{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + ('user' if message.role == 'tool' else message.role) + '\n' }}"
    "{{- message.content }}"
    "{%- for call in message.tool_calls or [] %}"
    "{{- '\n<tool_call>\n<function=' + call.function.name + '>\n' }}"
    "{%- for name, value in call.function.arguments | items %}"
    "{{- '<parameter=' + name + '>\n' }}"
    "{{- (value if value is string else value | tojson) + '\n</parameter>\n' }}"
    "{%- endfor %}{{- '</function>\n</tool_call>' }}{%- endfor %}"
    "{{- '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
_CONTROL = re.compile(
    r"<[|｜][^\s<>|｜]+[|｜]>|\[/?[A-Z_]{4,}\]|</?tool_\w+>|</?think>|<\w+_of_turn>"
    r'|<\|(?:tool|tool_call|tool_response|channel|turn|")\|?>|<(?:tool|channel|turn|tool_\w+)\|>'
)


def tokenizer_of(template: str, end: str) -> PreTrainedTokenizerFast:
    """A small tokenizer that has the control tokens of a template; those of tools are merely
    added, as Qwen's are."""
    bpe = Tokenizer(BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = list(dict.fromkeys(["<|pad|>", "<|begin|>", end]))
    trainer = BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(["SELECT name FROM city"] * 5, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<|begin|>", eos_token=end, pad_token="<|pad|>"
    )
    control = sorted(set(_CONTROL.findall(template)))
    tokenizer.add_tokens(
        [AddedToken(t, special=not t.startswith(("<t", "</")), normalized=False) for t in control]
    )
    tokenizer.chat_template = template
    return tokenizer


FAMILIES = {
    "qwen2.5": tokenizer_of((FOLDER / "qwen2_5.jinja").read_text(), "<|im_end|>"),
    "qwen3-2507": tokenizer_of((FOLDER / "qwen3_instruct_2507.jinja").read_text(), "<|im_end|>"),
    "qwen-xml": tokenizer_of(QWEN_XML, "<|im_end|>"),
    "llama-3.1": tokenizer_of((FOLDER / "llama3_1.jinja").read_text(), "<|eot_id|>"),
    "mistral": tokenizer_of(MISTRAL, "</s>"),
    "tiny": tokenizer_of(TINY_TEMPLATE + "{# <|user|> <|system|> <|assistant|> #}", "<|end|>"),
}


def run_sql(query: str, limit: int = 10) -> str:
    """Run one statement.

    Args:
        query: The statement.
        limit: The most rows.
    """
    return f"{limit} rows of {query}"


TOOLS = declare([run_sql])


def asks(text: str = "How many cities?") -> Message:
    return Message("user", text, tools=TOOLS)


def calls(*given: tuple, text: str = "", source: Source = Source.EXPERT) -> Message:
    """A message that calls tools, each given as name and arguments."""
    made = tool_calls((name, arguments, None) for name, arguments in given)
    return Message("assistant", text, source, tool_calls=made)


def result(message: Message, text: str, number: int = 0) -> Message:
    call = message.tool_calls[number]
    return Message("tool", text, tool_call_id=call.id, name=call.name)
