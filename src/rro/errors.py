"""Errors that a user can fix: one sentence each, printed without a traceback."""

from __future__ import annotations

import pickle
import traceback
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

# Characters of an error's text that are shown and recorded.
_LONGEST = 500


class RroError(Exception):
    """Something failed while running: exit code 1."""

    exit_code = 1


class UsageError(RroError):
    """The user's input is wrong (file, key or option); the sentence names it and the fix: exit
    code 2."""

    exit_code = 2


class DataError(UsageError):
    """A data file is missing or does not have the expected form."""


class RestoreError(RroError):
    """A restored or replayed environment differs from the recorded one: the fork would be a
    different episode."""


class PolicyError(Exception):
    """A policy could not answer. No RroError: it does not end a run. The caller tries again, then
    what it asked for is missing."""


class PluginError(Exception):
    """What the code of an environment, a policy or another plug-in raised although it is no
    Exception, and would have ended the process or a worker: SystemExit, KeyboardInterrupt,
    CancelledError, GeneratorExit. `kind` is its class's name."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(_text(error))
        self.kind, self.__cause__ = type(error).__name__, error


def kind_of(error: BaseException) -> str:
    """The name of an error's class, by which failures are counted."""
    return str(getattr(error, "kind", type(error).__name__))


def describe(error: BaseException) -> str:
    """Class and text of an error that somebody else's code raised, for a log or a record: at most
    some 500 characters, without control characters, whatever its `__str__` does."""
    return f"{kind_of(error)}: {_text(error)}"


def reason_of(error: Exception) -> str:
    """What an error says, for a sentence that names the file already: of an OSError neither its
    number nor its file."""
    return str(getattr(error, "strerror", None) or error)


def place_of(error: BaseException) -> str:
    """Where an error was raised, as " (FILE, line N)", unless its message says so."""
    if isinstance(error, PluginError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, SyntaxError) or error.__traceback__ is None:
        return ""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f" ({last.filename}, line {last.lineno})"


def portable(error: BaseException, otherwise: type[Exception] = RroError) -> Exception:
    """The error, or its text in an `otherwise` where another process could not read it: pickle can
    write some libraries' errors, but not read them."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return otherwise(describe(error))
    return error if isinstance(error, Exception) else otherwise(describe(error))


@contextmanager
def as_interrupt() -> Iterator[None]:
    """Ctrl-C as KeyboardInterrupt, also where pydantic, in the middle of building a class, has made
    an error of its own of it."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ == "SchemaError" and "KeyboardInterrupt" in str(error):
            raise KeyboardInterrupt from error
        raise


def counted(count: int, things: str) -> str:
    """A count as a sentence has it, of `things` in the plural: "1 pair", "1,200 policies"."""
    if count == 1:
        things = f"{things[:-3]}y" if things.endswith("ies") else things.removesuffix("s")
    return f"{count:,} {things}"


def printable(text: str) -> str:
    """`text` without what would control a terminal: escapes and the like are written as \\x1b.
    Line ends and tabs stay."""
    if text.isprintable():
        return text
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    # Cc: control; Cf: invisible, such as a change of direction; Cs: half of a character.
    if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs"):
        return character
    return character.encode("unicode_escape").decode()


def _text(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException as broken:
        return f"(its __str__ raised {type(broken).__name__})"
    text = printable(text[:_LONGEST]) + (" ..." if len(text) > _LONGEST else "")
    return text.strip()
