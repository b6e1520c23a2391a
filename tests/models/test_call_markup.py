"""Tool calls as models write them: what is plain is read, what is not becomes a call that no
environment carries out, and nothing raises."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rro.models.call_markup import (
    READERS,
    read_deepseek,
    read_gemma,
    read_glm,
    read_gpt_oss,
    read_hermes,
    read_lfm,
    read_llama,
    read_mistral,
    read_qwen_xml,
)
from rro.tool_calls import UNNAMED, tool_calls

SCHEMA = {
    "type": "function",
    "function": {
        "name": "find",
        "parameters": {"properties": {"name": {"type": "string"}, "page": {"type": "integer"}}},
    },
}


def read(reader, text):
    content, calls = reader(text, [SCHEMA])
    return content, [(call.name, call.arguments) for call in tool_calls(calls)]


@pytest.mark.parametrize(
    ("reader", "text", "content", "expected"),
    [
        (read_hermes, "no call", "no call", []),
        (read_hermes, 'hm\n<tool_call>{"name":"f"}</tool_call>', "hm", [("f", "{}")]),
        (
            read_hermes,
            '<tool_call>{"name":"f","arguments":{"a":"</tool_call>"}}</tool_call>\n'
            '<tool_call>\n{"name": "g", "arguments": "{\\"b\\": 1}"}',
            "",
            [("f", '{"a": "</tool_call>"}'), ("g", '{"b": 1}')],
        ),
        (
            read_hermes,
            'hm\n```json\n{"name": "find", "arguments": {"page": 1}}\n```\n{"name": "g"}',
            "hm",
            [("find", '{"page": 1}')],
        ),
        (read_hermes, '{"name": "g", "arguments": {}}', '{"name": "g", "arguments": {}}', []),
        (
            read_glm,
            "hm\n<tool_call>find\n<arg_key>name</arg_key>\n<arg_value>7 < 8</arg_value>\n"
            "<arg_key>page</arg_key>\n<arg_value>7</arg_value>\n</tool_call>",
            "hm",
            [("find", '{"name": "7 < 8", "page": 7}')],
        ),
        (
            read_gemma,
            'hm<|tool_call>call:find{name:<|"|>a: {"b", c: 1}<|"|>,page:2}<tool_call|>'
            "<|tool_call>call:find{}<tool_call|>",
            "hm",
            [("find", '{"name": "a: {\\"b\\", c: 1}", "page": 2}'), ("find", "{}")],
        ),
        (read_gemma, "<|tool_call>call:f{oops", "", [(UNNAMED, "None: call:f{oops")]),
        (
            read_lfm,
            "<|tool_call_start|>[find(name='it\\'s', page=1), g(a=[true, 'x'])]<|tool_call_end|>hm",
            "hm",
            [("find", '{"name": "it\'s", "page": 1}'), ("g", '{"a": [true, "x"]}')],
        ),
        (
            read_lfm,
            "<|tool_call_start|>[find(name='it's, 'b', page=1)]<|tool_call_end|>",
            "",
            [("find", '{"name": "it\'s, \'b", "page": 1}')],
        ),
        (read_lfm, "<|tool_call_start|>[find(name=", "", [(UNNAMED, "None: [find(name=")]),
        (
            read_gpt_oss,
            "<|start|>assistant to=functions.find<|channel|>commentary json<|message|>"
            '{"page": 1}<|call|>',
            "",
            [("find", '{"page": 1}')],
        ),
        (
            read_gpt_oss,
            '<|channel|>commentary to=functions.find <|constrain|>json<|message|>{"page": 1}',
            "",
            [("find", '{"page": 1}')],
        ),
        (read_gpt_oss, "to=functions.f<|message|>{", "", [(UNNAMED, "None: {")]),
        (
            read_deepseek,
            "hm<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>find\n```json\n"
            '{"page": 1}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
            "hm",
            [("find", '{"page": 1}')],
        ),
        (read_deepseek, "no call", "no call", []),
        (read_hermes, "<tool_call>{oops</tool_call>", "", [(UNNAMED, "None: {oops")]),
        (read_hermes, '<tool_call>{"name": 5}</tool_call>', "", [(UNNAMED, 'None: {"name": 5}')]),
        (
            read_qwen_xml,
            "<tool_call><function=find>\n<parameter=name>\n7\n</parameter>\n"
            "<parameter=page>\n7\n</parameter></function></tool_call>",
            "",
            [("find", '{"name": "7", "page": 7}')],
        ),
        (read_qwen_xml, "<tool_call>find()</tool_call>", "", [(UNNAMED, "None: find()")]),
        (
            read_mistral,
            'hm[TOOL_CALLS] [{"name":"f","arguments":{}},{"name":"g","arguments":{"a":1}}]',
            "hm",
            [("f", "{}"), ("g", '{"a": 1}')],
        ),
        (read_mistral, '[TOOL_CALLS]f[ARGS]{"a": 1}', "", [("f", '{"a": 1}')]),
        (
            read_mistral,
            '[TOOL_CALLS]f{"a": 1}[TOOL_CALLS]g{}',
            "",
            [("f", '{"a": 1}'), ("g", "{}")],
        ),
        (read_mistral, "[TOOL_CALLS] nothing", "", [(UNNAMED, "None:  nothing")]),
        (
            read_llama,
            '<|python_tag|>{"name":"f","parameters":{"a":1}}; {"name":"g","arguments":{}}',
            "",
            [("f", '{"a": 1}'), ("g", "{}")],
        ),
        (read_llama, 'I see {"name": "f", "parameters"', "I see", [(UNNAMED, None)]),
        (
            read_hermes,
            '{"name": "", "name": ["find"], "arguments": {}}',
            '{"name": "", "name": ["find"], "arguments": {}}',
            [],
        ),
        (
            read_mistral,
            '[TOOL_CALLS][{"name": "f"}, 1]',
            "",
            [("f", "{}"), (UNNAMED, "None: 1")],
        ),
        *(
            (read_lfm, f"<|tool_call_start|>[find({given})]<|tool_call_end|>", "", [named])
            for given, named in {
                "page={1}": ("find", '{"page": "{1}"}'),
                "page=b'x'": ("find", '{"page": "b\'x\'"}'),
                "page={[1]: 2}": ("find", '{"page": "{[1]: 2}"}'),
                "**page": (UNNAMED, None),
            }.items()
        ),
    ],
)
def test_calls_are_read(reader, text, content, expected):
    found_content, found = read(reader, text)
    assert found_content == content
    assert [name for name, _ in found] == [name for name, _ in expected]
    for (_, arguments), (_, wanted) in zip(found, expected, strict=True):
        assert wanted is None or arguments == wanted


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([reader for _, reader in READERS]),
    st.lists(
        st.sampled_from(
            [
                *("<tool_call>", "</tool_call>", "<function=f>", "<parameter=a>", "</parameter>"),
                *("[TOOL_CALLS]", "[ARGS]", "f", "{", "}", "[", "]", '"name"', ":", '"f"', ";"),
                *('{"name": "f", "arguments": {"a": NaN}}', "\\ud800", "1e999", "\n", " "),
                *('"arguments"', ",", "null", "<|python_tag|>", "\x00", '{"name": "<|end|>"}'),
            ]
        ),
        max_size=12,
    ).map("".join),
)
def test_whatever_a_model_writes_is_read_without_an_error(reader, text):
    content, found = reader(text, [SCHEMA])
    calls = tool_calls(found)
    assert len({call.id for call in calls}) == len(calls)
    for call in calls:
        assert call.name.replace("_", "").replace("-", "").replace(".", "").isalnum()
        json.dumps([call.arguments, call.values(), content])


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>" * 20_000,
        '<tool_call>{"name": "f", "arguments": ' + '{"a": ' * 100_000,
        '{"name": "f", "parameters": {}};' * 5_000,
        "[TOOL_CALLS]" + "[" * 200_000,
        "<tool_call><function=f>" + "<parameter=a>" * 20_000,
        '<tool_call>{"name": "f", "arguments": {"a": ' + "9" * 100_000 + "}}</tool_call>",
        "<tool_call>" + "<arg_key>" * 50_000,
        "<tool_call>" + "<arg_key>a</arg_key>" * 20_000,
        "<tool_call>" + "<function=" * 50_000,
        "<tool_call><function=f>" + "<parameter=" * 50_000,
        "to=functions.a" * 30_000,
        "to=functions." + "a" * 400_000,
        "[TOOL_CALLS]f" + " " * 400_000,
        "[TOOL_CALLS][" + "1," * 5_000 + "1]",
        "<|tool_call_start|>f(" + ")" * 100_000 + "<|tool_call_end|>",
    ],
)
def test_long_and_deep_texts_are_read_in_linear_time(text):
    started = time.process_time()
    for _, reader in READERS:
        _, found = reader(text, [SCHEMA])
        calls = tool_calls(found)
        assert sum(len(call.arguments) for call in calls) < 5 * len(text)
    assert time.process_time() - started < 20


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "null",
        "[]",
        '"x"',
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": 1, "a": 2}',
        "{'a': 1}",
        "{" * 9,
    ],
)
def test_arguments_that_are_no_json_object_have_no_values(arguments):
    (call,) = tool_calls([("f", arguments, None)])
    assert call.values() is None
    assert call.chat()["function"]["arguments"] == {"invalid": arguments}


def test_names_and_ids_hold_no_control_tokens():
    found = tool_calls(
        [
            ("<|im_end|>", "{}", "a"),
            ("f", {"half": "\ud800"}, "a"),
            ("f", None, "<|im_end|>"),
            (None, object(), 7),
        ]
    )
    assert [call.name for call in found] == [UNNAMED, "f", "f", UNNAMED]
    assert found[0].id == "a"
    assert len({call.id for call in found}) == 4
    assert all(len(call.id) == 9 for call in found[1:])
    assert found[1].values() == {"half": "?"}
    again = tool_calls([("<|im_end|>", "{}", "a"), ("f", {"half": "\ud800"}, "a")])
    assert again == found[:2]
