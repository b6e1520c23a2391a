"""Errors that a user can fix: one sentence each, printed without a traceback."""

from __future__ import annotations


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
