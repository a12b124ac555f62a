"""Engines for the tests of benchmarks: aoti itself, with something done to it on purpose."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from aoti.bench.engines.runtime import Runtime


class Slow(Runtime):
    """Takes two milliseconds more."""

    def call(self, inputs):
        call = super().call(inputs)

        def slowed():
            time.sleep(0.002)
            return call()

        return slowed

    bound = call


class Wrong(Runtime):
    """Adds a thousandth."""

    def answer(self, inputs):
        return [output + 0.001 for output in super().answer(inputs)]


class Raising(Runtime):
    """Fails when it loads."""

    def __init__(self, job):
        raise OSError("the model is\nnot liked")


class Dying(Runtime):
    """Is killed at its first call, and has said something before."""

    def call(self, inputs):
        print("no way to go on")
        os.kill(os.getpid(), signal.SIGSEGV)


class Hanging(Runtime):
    """Never answers; its process writes its number into a file."""

    def call(self, inputs):
        Path(os.environ["AOTI_TEST_MARK"]).write_text(str(os.getpid()))
        time.sleep(600)
