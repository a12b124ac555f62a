"""The process of an engine: loads the model, and answers messages."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from aoti._processes import Channel, find
from aoti.bench.process import memory
from aoti.bench.process.job import Finished, Inputs, Job, Prepare, Prepared, Started, Turn
from aoti.bench.process.timing import Round, queued, side_by_side

if TYPE_CHECKING:
    from aoti.bench.engines.base import Engine

# Calls in the queue per runner: one that runs, and one that is next.
_QUEUED = 2


def serve(channel: Channel, target: str, job: Job, inputs: Inputs) -> None:
    """Load a model, call it once, and then answer messages until there are no more."""
    kind: Callable[[Job], Engine] = find(target)
    imported = time.perf_counter_ns()
    before = memory.private()
    looking = time.perf_counter_ns() - imported
    engine = kind(job)
    loaded = time.perf_counter_ns()
    with engine.context():
        engine.call(inputs)()
    answered = time.perf_counter_ns()
    after = memory.private()
    channel.answer(
        Started(imported, loaded - looking, answered - looking, before, after, engine.versions)
    )
    cases: list[Callable[[float], Round]] = []
    while True:
        message = channel.receive()
        answer: Any
        if isinstance(message, Prepare):
            outputs = engine.answer(message.inputs.copied())
            run = _runner(engine, job, message.inputs)
            if message.seconds:
                run(message.seconds)
            cases.append(run)
            answer = Prepared(outputs, memory.private())
        elif isinstance(message, Turn):
            run = cases[message.case]
            run(0)  # other processes have replaced the content of the caches
            answer = run(message.seconds)
        else:
            answer = Finished(memory.private(), *memory.resident())
        channel.answer(answer)


def _runner(engine: Engine, job: Job, inputs: Inputs) -> Callable[[float], Round]:
    """A function that makes timed calls for so many seconds; each runner has its own arrays."""
    if job.mode == "async":
        return partial(queued, engine.submitter(inputs), _QUEUED * job.runners)
    make = engine.bound if job.mode == "bound" else engine.call
    calls = [make(inputs.copied()) for _ in range(job.runners)]
    return partial(side_by_side, calls, context=engine.context)
