"""What an environment says about a step beside its observation (`StepResult.info`), as plain JSON
values of a bounded size, for records and reports. Knows no environment; no value makes it fail."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rro.jsonl import storable

# Fields of a step that are kept, and characters of each as JSON.
MOST_FIELDS = 40
LONGEST_VALUE = 2_000


def plain_info(info: Any) -> dict[str, Any]:
    """The first `MOST_FIELDS` fields, each as it comes back from JSON. A value that JSON cannot
    hold, or that is longer than `LONGEST_VALUE`, becomes the beginning of its text. What is no
    mapping is the field "info"; nothing gives nothing."""
    if info is None or (isinstance(info, Mapping) and not info):
        return {}
    fields = info.items() if isinstance(info, Mapping) else [("info", info)]
    return {
        storable(_text(name)): _plain(value)
        for _, (name, value) in zip(range(MOST_FIELDS), fields, strict=False)
    }


def listed(value: Any) -> Any:
    """Arrays and scalars of NumPy and the like as lists and numbers, anything else as Python shows
    it: the `default` of `json.dumps`."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _plain(value: Any) -> Any:
    try:
        text = json.dumps(value, default=listed, allow_nan=False, ensure_ascii=False)
        if len(text) <= LONGEST_VALUE:
            return json.loads(storable(text))
    except Exception:
        # NaN, a circle, keys that are no text, or an error of the value's own code.
        return _text(value)
    return f"{storable(text[:LONGEST_VALUE])} ..."


def _text(value: Any) -> str:
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception as error:
        text = f"(its __repr__ raised {type(error).__name__})"
    text = storable(str.__str__(text))
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]} ..."
