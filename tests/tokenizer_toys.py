"""Small tokenizers of every kind, with chat templates: byte-level, SentencePiece (old and new) and
Unigram, with tokens that are special, merely added, normalised, or eat white space."""

import json

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    normalizers,
    pre_tokenizers,
)
from tokenizers.models import BPE, Unigram, WordLevel
from tokenizers.trainers import BpeTrainer, UnigramTrainer
from transformers import PreTrainedTokenizerFast

from rro.models.templates import SMOLLM2_TEMPLATE, TINY_TEMPLATE

TEXTS = [
    "search[red shoes 10] and click[buy now]",
    "Thought: the price is 12.50 dollars\n\nuser assistant system\n",
    "<|end|><s></s> [INST] <<SYS>> </|user> im_end im_start",
] * 9

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
    "{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% else %}{% set rest = messages %}{% set system = '' %}{% endif %}"
    "{% for m in rest %}{% set content = (system if loop.index0 == 0 else '') + m['content'] %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)

MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'system' %}{{ raise_exception('no system message') }}"
    "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)

WORD_MISTRAL = (
    MISTRAL.replace("'[INST] '", "' [INST] '")
    .replace("' [/INST]'", "' [/INST] '")
    .replace("eos", "' ' + eos")
)

DEEPSEEK = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ '<｜User｜>' + m['content'] }}{% elif m['role'] == 'assistant' %}"
    "{{ '<｜Assistant｜>' + m['content'] + '<｜end▁of▁sentence｜>' }}{% else %}{{ m['content'] }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"
)

GEMMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<start_of_turn>' + m['role'] | replace('assistant', 'model') + '\n' "
    "+ m['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)

PHI = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)

PLAIN = (
    "{% for m in messages %}{{ m['role'] | upper + ': ' + m['content'] }}"
    "{{ eos_token if m['role'] == 'assistant' else '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
).replace("': ' + m", "':' + ('' if m['role'] == 'assistant' else ' ') + m")

ROLES = ["<|system|>", "<|user|>", "<|assistant|>"]


def byte_level(template, tokens, end, bos="<s>", **options):
    bpe = Tokenizer(BPE(ignore_merges=options.pop("ignore_merges", False)))
    bpe.normalizer = options.pop("normalizer", None)
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=options.pop("add_prefix_space", False)
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(TEXTS, trainer)
    return finished(bpe, template, tokens, end, bos)


def finished(backend, template, tokens, end, bos="<s>", **more):
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=bos, eos_token=end, **more
    )
    tokenizer.add_tokens(
        [token if isinstance(token, AddedToken) else AddedToken(token) for token in tokens]
    )
    tokenizer.chat_template = template
    return tokenizer


def special(*texts, **flags):
    return [AddedToken(text, special=True, normalized=False, **flags) for text in texts]


def added(*texts, **flags):
    return [AddedToken(text, special=False, **{"normalized": False, **flags}) for text in texts]


def old_sentencepiece(template, first=None):
    """As the tokenizer.json of Llama-2 and Mistral v0.1: a space before each piece of text."""
    bpe = Tokenizer(BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    # no piece goes beyond a word
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = BpeTrainer(
        vocab_size=600, special_tokens=["<unk>", "<s>", "</s>", *pieces], show_progress=False
    )
    bpe.train_from_iterator([text.replace("\n", " ") for text in TEXTS], trainer)
    if first is None:
        steps = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        bpe.normalizer, bpe.pre_tokenizer = normalizers.Sequence(steps), None
    else:
        bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=first, split=False)
    strip = decoders.Strip(" ", 1, 0)
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), strip]
    bpe.decoder = decoders.Sequence(steps)
    tree = json.loads(bpe.to_str())
    # bytes are pieces of the vocabulary, not added tokens
    tree["added_tokens"] = tree["added_tokens"][:3]
    backend = Tokenizer.from_str(json.dumps(tree))
    return finished(backend, template, [], "</s>", unk_token="<unk>")


def unigram(template):
    """Control tokens are pieces of the vocabulary that text could match."""
    model = Tokenizer(Unigram())
    model.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    model.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = UnigramTrainer(
        vocab_size=150,
        special_tokens=["<unk>", "<s>", "</s>"],
        unk_token="<unk>",
        show_progress=False,
    )
    model.train_from_iterator(TEXTS, trainer)
    return finished(model, template, [], "</s>", unk_token="<unk>")


def words(template):
    """Each word is a token, so the name of a control token is one, too."""
    names = ["<unk>", "<s>", "</s>", "user", "red", "[INST]", "[/INST]", "search", "now"]
    model = Tokenizer(WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+"), "removed")
    return finished(model, template, [], "</s>", unk_token="<unk>")


TOKENIZERS = {
    "tiny": byte_level(TINY_TEMPLATE, special("<|pad|>", *ROLES), "<|end|>", "<|begin|>"),
    "smollm2": byte_level(SMOLLM2_TEMPLATE, special("<|im_start|>", "<|im_end|>"), "<|im_end|>"),
    "chatml, in the vocabulary": byte_level(
        CHATML,
        special("<|im_start|>", "<|im_end|>") + added("<think>", "<tool_call>"),
        "<|im_end|>",
        ignore_merges=True,
    ),
    "llama-2": old_sentencepiece(LLAMA_2),
    "llama-2, always": old_sentencepiece(LLAMA_2, "always"),
    "llama-2, first": old_sentencepiece(LLAMA_2, "first"),
    "mistral": old_sentencepiece(MISTRAL),
    "unigram": unigram(MISTRAL),
    "words": words(WORD_MISTRAL),
    "deepseek-r1-distill": byte_level(
        DEEPSEEK,
        added("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>") + special("<|eot|>"),
        "<｜end▁of▁sentence｜>",
        "<｜begin▁of▁sentence｜>",
    ),
    "gemma": byte_level(
        GEMMA,
        special("<start_of_turn>", "<end_of_turn>") + added("\n\n", "  ", "<table>"),
        "<end_of_turn>",
        "<bos>",
    ),
    "phi-3": byte_level(PHI, special("<|end|>", *ROLES, rstrip=True), "<|end|>", "<s>"),
    "lower case": byte_level(
        PHI,
        special("<|end|>") + added(*ROLES, normalized=True),
        "<|end|>",
        normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]),
    ),
    "prefix space": byte_level(
        CHATML, special("<|im_start|>", "<|im_end|>"), "<|im_end|>", add_prefix_space=True
    ),
    "words alone": byte_level(
        CHATML,
        special("<|im_start|>", "<|im_end|>") + added("reset", single_word=True),
        "<|im_end|>",
    ),
    "no roles": byte_level(PLAIN, [], "</s>"),
}
