"""How a chat template ends an answer, and how it writes one with tool calls: learned from what it
renders for a few messages.

Knows templates and control tokens, not conversations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rro.errors import UsageError
from rro.models.rendering import PROBE_TOOLS, CallSupport, Rendering, text_after_prompt
from rro.models.text_encoder import TextEncoder
from rro.types import Message, ToolCall

PROBE = ("Name one rule.", "Rule seven.", "What comes next?", "Rule eight.", "And then?")


@dataclass(frozen=True, slots=True)
class Closing:
    """What the template writes after an answer: the text, the ids up to the end-of-turn token
    (which the policy samples), and the remaining ids (which the template adds)."""

    text: str
    ids: tuple[int, ...]
    rest: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CallForm:
    """How a template writes an answer with tool calls: a `sample` of it, the ids of the control
    tokens in that, and what it writes after it."""

    sample: str
    ids: frozenset[int]
    closing: Closing


def learn_closing(template: Rendering, encoder: TextEncoder, continues: bool) -> Closing:
    """What ends an answer. Raises UsageError for a template that ends it with no special token.
    Where a history `continues` what was sampled, also for one whose answers do not follow its
    generation prompt; else the special token that begins the next turn may end an answer, too."""
    question, answer = Message("user", PROBE[0]), Message("assistant", PROBE[1])
    asked = template.pieces(_try(template, [question], True), [question], True)
    both = [question, answer]
    _, *after = template.pieces(_try(template, both, False), both, False)
    opening = text_after_prompt(after[0].own, asked[-1].own) if len(after) == 2 else None
    if len(after) != 2 or (opening is None and continues):
        raise UsageError(
            f"the chat template of {template.name} is not prefix-preserving (its answers do not "
            "follow its generation prompt): name another template in model.chat_template"
        )
    told = encoder.new_text(asked) + encoder.control.protect(opening or "") + answer.content
    closing = after[1].own
    if not continues and not _has_special(encoder, closing):
        more = [question, answer, question]
        after_answer = template.pieces(_try(template, more, False), more, False)[2].own
        closing = after_answer[: _end_of_first_special(encoder, after_answer)]
        if not any(closing.strip() == special for special in _special(encoder)):
            # What the template writes there is no token that the model could end with.
            closing = after[1].own
    return _closing_of(template, encoder, told, closing)


def inside_answers(template: Rendering, encoder: TextEncoder) -> frozenset[int]:
    """The control tokens that the template writes inside an answer that thinks: in front of its
    thought and between that and what it says."""
    question = Message("user", PROBE[0])
    for thought in (PROBE[3], ""):
        chat = [question, Message("assistant", PROBE[1], thought=thought)]
        try:
            asked = template.pieces(template.render([question], True), [question], True)
            pieces = template.pieces(template.render(chat, False), chat, False)
        except UsageError:
            continue
        own = "".join(piece.own + " " for piece in pieces if piece.number == 1)
        opening = text_after_prompt(own, asked[-1].own)
        if opening is not None:
            control = encoder.control
            return control.ids.intersection(control.encode(control.protect(opening)))
    return frozenset()


def _special(encoder: TextEncoder) -> list[str]:
    control = encoder.control
    return [text for text, id_ in control.texts.items() if id_ in control.special]


def _has_special(encoder: TextEncoder, text: str) -> bool:
    return any(special in text for special in _special(encoder))


def _end_of_first_special(encoder: TextEncoder, text: str) -> int:
    """Where the first special token of a text ends; 0 if it has none."""
    places = [(text.find(one), len(one)) for one in _special(encoder) if one in text]
    return sum(min(places, default=(0, 0)))


def _closing_of(template: Rendering, encoder: TextEncoder, told: str, closing: str) -> Closing:
    """What the template writes after an answer, `told` being the protected text before it."""
    control = encoder.control
    closing = control.protect(closing)
    ids = encoder.following(control.tail(told), closing)
    end = next((number for number, id_ in enumerate(ids) if id_ in control.special), None)
    if end is None:
        raise UsageError(
            f"the chat template of {template.name} does not end an answer with a special token, "
            "so the policy could not end its turn: name another template in model.chat_template"
        )
    return Closing(closing, tuple(ids[: end + 1]), tuple(ids[end + 1 :]))


def learn_calls(
    template: Rendering, encoder: TextEncoder, end_of_turn: int, continues: bool
) -> CallForm | None:
    """How the template writes tool calls, None if it writes none; `template.calls` says then what
    else it can write with them. `continues`: as in `learn_closing`."""
    question = Message("user", PROBE[0], tools=PROBE_TOOLS)
    call = ToolCall("probe_tool", json.dumps({"argument": PROBE[1]}), "probecall")
    answer = Message("assistant", "", tool_calls=(call,))
    asked = [question, answer]
    # Some templates want arguments as JSON text.
    template.text_arguments = not _try(template, asked, False)
    before, after = _try(template, [question], continues), _try(template, asked, False)
    sample, value, closing = after.removeprefix(before).rpartition(PROBE[1])
    if not before or not after.startswith(before) or "probe_tool" not in sample:
        return None
    if not continues and not _has_special(encoder, closing):
        answered = Message("tool", PROBE[2], tool_call_id=call.id, name=call.name)
        more = _try(template, [*asked, answered], False)
        if more.startswith(after):
            added = more[len(after) :]
            closing += added[: _end_of_first_special(encoder, added)]
    end = _end_of_calls(encoder, end_of_turn, closing)
    if end < 0:
        return None
    control = encoder.control
    own = control.protect(sample + value + closing[:end])
    ids = control.ids.intersection(control.encode(own))
    several = replace(answer, tool_calls=(call, replace(call, name="probe_other")))
    beside = _try(template, [question, replace(answer, content=PROBE[3])], False)
    template.calls = CallSupport(
        content=PROBE[3] in beside,
        parallel="probe_other" in _try(template, [question, several], False),
    )
    told = control.protect(before + sample + value + closing[:end])
    closed = _closing_of(template, encoder, told, closing[end:])
    return CallForm(sample, frozenset(ids), closed)


def _end_of_calls(encoder: TextEncoder, end_of_turn: int, closing: str) -> int:
    """Where the end-of-turn token is in what follows the last call: the usual one, or else the
    last special token; -1 if there is none."""
    usual = [text for text, id_ in encoder.control.texts.items() if id_ == end_of_turn]
    for texts in (usual, _special(encoder)):
        places = [place for text in texts if (place := closing.rfind(text)) >= 0]
        if places:
            return max(places)
    return -1


def _try(template: Rendering, messages: Sequence[Message], prompt: bool) -> str:
    try:
        return template.render(messages, prompt)
    except UsageError:
        return ""
