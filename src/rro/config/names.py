"""What may name a folder of a run."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

_MOST_CHARACTERS, _MOST_BYTES, _SHOWN = 100, 200, 20


def folder_name(text: str) -> str:
    """`text`, if it names one folder on every system. Raises ValueError that says why not."""
    problem = _problem(text)
    if problem:
        shown = ascii(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!a}..."
        raise ValueError(
            f"{shown} {problem}, but a folder gets this name: use up to {_MOST_CHARACTERS} "
            "letters, digits, - and _"
        )
    return text


def _problem(text: str) -> str:
    if not text.strip():
        return "is empty"
    if text in (".", ".."):
        return "means another folder"
    if "/" in text or "\\" in text:
        return "has a slash"
    if not text.isprintable():
        return "has a character that cannot be printed"
    if len(text) > _MOST_CHARACTERS or len(text.encode()) > _MOST_BYTES:
        return "is too long"
    return ""


FolderName = Annotated[str, AfterValidator(folder_name)]
