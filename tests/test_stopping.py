"""Requests to end: they reach the work wherever they come."""

import os
import signal
import time
import weakref

import pytest

from rro import stopping


class Thing:
    """Something with a finalizer."""


def interrupted_in_a_finalizer(number):
    """A signal comes while Python tidies up, where exceptions go nowhere."""
    thing = Thing()
    weakref.finalize(thing, os.kill, os.getpid(), number)
    del thing


def work(interrupted):
    """Takes long unless something ends it."""
    interrupted()
    time.sleep(10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_in_a_finalizer_comes_again(capfd, number):
    with stopping.listening(), stopping.interruptions_last():
        with pytest.raises(KeyboardInterrupt):
            work(lambda: interrupted_in_a_finalizer(number))
        assert stopping.requested() == (number == signal.SIGTERM)
    assert not stopping.requested()
    assert capfd.readouterr().err == ""


def test_a_training_that_was_asked_goes_on_to_its_clean_point(capfd):
    with stopping.listening(), stopping.interruptions_last():
        with pytest.raises(KeyboardInterrupt):
            work(lambda: os.kill(os.getpid(), signal.SIGTERM))
        with stopping.at_clean_points():
            interrupted_in_a_finalizer(signal.SIGINT)
            time.sleep(0.2)
        assert stopping.requested()
    assert capfd.readouterr().err == ""


def test_other_exceptions_of_finalizers_are_told(monkeypatch):
    told = []
    monkeypatch.setattr("sys.unraisablehook", told.append)
    with stopping.interruptions_last():
        thing = Thing()
        weakref.finalize(thing, int, "no number")
        del thing
    assert [each.exc_type for each in told] == [ValueError]
