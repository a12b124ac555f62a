"""A simulation of many nodes: how a package reaches them, and how a service grows with its load.

usage: python rollout.py [--nodes 1000] [--package 92] [--uplink 1250] [--link 125] [--ready 2]
       [--rate 380] [--json]

What is given: the megabytes of a package, the seconds from the start of a process to ready, and the
answers per second of a replica (tests/benchmarks/serving.py). What belongs to a network: megabytes
per second of the registry's uplink, and of a node's link. Time goes in steps of 0.1 s.
"""

from __future__ import annotations

import argparse
import math
from collections import deque

from figures import tell

STEP = 0.1  # seconds
PERIOD, TARGET = 15.0, 0.7  # of Kubernetes' autoscaler: seconds, and the part of the rate to use
SCHEDULED = 3.0  # seconds until a new replica's process starts, on a node that has its image


def distribution(nodes: int, package: float, uplink: float, link: float, *, peers: bool) -> float:
    """Seconds until all nodes have a package.

    The registry serves as many nodes as its uplink allows. With `peers`, a node that has the
    package passes it on, to one node at a time.
    """
    done, arrived, seconds = 0, 0.0, 0.0
    while done < nodes:
        speed = uplink + (done * link if peers else 0)
        arrived += min(speed, (nodes - done) * link) * STEP
        done = int(arrived / package)  # only a whole package can be passed on
        seconds += STEP
    return max(seconds, package / link)


def rollout(nodes: int, wave: float, package_seconds: float, reload: float, watch: float) -> float:
    """Seconds of a rollout in waves: 1%, then `wave` of all nodes at a time, each watched a while.

    A node goes on with its old model until the new one has made a run, so no wave costs capacity.
    """
    waves = 1 + math.ceil((nodes - max(1, nodes // 100)) / max(1, int(nodes * wave)))
    return package_seconds + waves * (reload + watch)


def growth(
    before: float, after: float, rate: float, ready: float, queue: int
) -> tuple[float, float, float]:
    """What a jump of the load from `before` to `after` answers a second does to a service.

    Returns
    -------
    tuple of float
        Seconds until nothing is refused any more; the part of all requests that were refused until
        then; and the longest time that a request waited.
    """
    replicas = math.ceil(before / rate / TARGET)
    starting: deque[tuple[float, int]] = deque()
    waiting = refused = longest = last = 0.0
    for tick in range(1, int(600 / STEP)):
        now = tick * STEP
        while starting and starting[0][0] <= now:
            replicas += starting.popleft()[1]
        if tick % int(PERIOD / STEP) == 0:  # so the load jumps just after a decision
            missing = math.ceil(after / rate / TARGET) - replicas
            if new := missing - sum(count for _, count in starting):
                starting.append((now + SCHEDULED + ready, new))
        waiting = max(0.0, waiting + (after - replicas * rate) * STEP)
        if (over := waiting - replicas * queue) > 0:
            refused, waiting, last = refused + over, waiting - over, now
        longest = max(longest, waiting / (replicas * rate))
    return last, refused / (after * last) if last else 0.0, longest


def main() -> None:
    """Simulate what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--package", type=float, default=92)
    parser.add_argument("--uplink", type=float, default=1250)
    parser.add_argument("--link", type=float, default=125)
    parser.add_argument("--ready", type=float, default=2)
    parser.add_argument("--rate", type=float, default=380)
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args()
    figures = {}
    for name, peers in (("registry alone", False), ("nodes pass it on", True)):
        seconds = distribution(a.nodes, a.package, a.uplink, a.link, peers=peers)
        figures[f"package everywhere, {name}, s"] = seconds
        for wave in (0.1, 0.25):
            took = rollout(a.nodes, wave, seconds, a.ready, 30)
            figures[f"rollout, {name}, waves of {wave:.0%}, s"] = took
    full = a.nodes * a.rate * TARGET
    for factor in (1.3, 2.0):
        for ready in (a.ready, 30.0):
            last, part, longest = growth(full / factor, full, a.rate, ready, 256)
            what = f"load x {factor}, ready in {ready:.0f} s"
            figures[f"{what}: refusals end after, s"] = last
            figures[f"{what}: refused until then, %"] = 100 * part
            figures[f"{what}: longest wait, s"] = longest
    tell(figures, as_json=a.json)


if __name__ == "__main__":
    main()
