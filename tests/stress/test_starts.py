"""Threads and processes that extract at once, are killed, interrupted or forked."""

from __future__ import annotations

import gc
import os
import random
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from aoti import Package
from aoti.cache import cache, manifest
from aoti.cache.extraction import NAME, Key

pytestmark = pytest.mark.usefixtures("place")
SO, BLOB = "a.wrapper.so", "a_weights.blob"


def cut(directory: Path):
    with next(directory.rglob(BLOB)).open("r+b") as file:
        file.truncate(0)


def keys() -> list[str]:
    return [entry.key for entry in cache.entries()]


def strays(place: Path) -> list[str]:
    names = [path.name for path in place.iterdir()] if place.is_dir() else []
    return [name for name in names if name != "index" and not re.fullmatch(NAME, name)]


@pytest.mark.parametrize("shared", [True, False])
def test_threads_share_extractions(package_of, shared, extract, content):
    texts = [b"0", b"1", b"2"]
    paths = [package_of(text, name=f"{text.decode()}.pt2") for text in texts]
    failures = []

    def work(seed):
        order = random.Random(seed)
        try:
            for _ in range(50):
                which = order.randrange(3)
                extraction = extract(paths[which], shared=shared)
                assert content(extraction) == texts[which]
                if not order.randrange(10):
                    cache.prune(0)
                twice = [threading.Thread(target=extraction.release) for _ in range(2)]
                for thread in twice:
                    thread.start()
                for thread in twice:
                    thread.join()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize("shared", [True, False])
def test_the_garbage_collector_may_release_in_the_middle_of_an_extraction(
    package_of, shared, extract, content
):
    class Model:
        def __init__(self, extraction):
            self.extraction = extraction
            self.cycle = self

        def __del__(self):
            self.extraction.release()

    class Collecting(Package):
        def extract(self, model_name, destination, **options):
            super().extract(model_name, destination, **options)
            assert gc.collect()

    gc.disable()
    try:
        Model(extract(package_of(b"1"), shared=shared))
        extraction = extract(package_of(b"2"), kind=Collecting, shared=shared)
    finally:
        gc.enable()
    if not shared:
        assert list(extraction.directory.parent.iterdir()) == [extraction.directory]
    assert content(extraction) == b"2"
    extraction.release()


SLOW = """
class Slow(Package):
    def extract(self, model_name, destination, **options):
        print("writing", flush=True)
        time.sleep(float(sys.argv[2]))
        super().extract(model_name, destination, **options)

with Slow(sys.argv[1]) as package:
    cache.extract(package, "model")
"""


def test_different_packages_do_not_wait_for_each_other(package_of, extract, content, start):
    slow = start(SLOW, package_of(b"1", name="slow.pt2"), 30)
    assert slow.stdout.readline() == "writing\n"
    assert content(extract(package_of(b"2"))) == b"2"
    slow.kill()
    slow.communicate()
    cache.prune(1 << 30)


def test_waiting_can_be_interrupted_and_ends_with_the_writer(package_of, extract, content, start):
    path = package_of(b"1")
    slow = start(SLOW, path, 30)
    assert slow.stdout.readline() == "writing\n"

    class Alarm(Exception):
        pass

    def ring(*_):
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(Alarm):
            extract(path)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    killer = threading.Timer(0.3, slow.kill)
    killer.start()
    assert content(extract(path)) == b"1"
    killer.join()
    slow.communicate()


START = """
print("ready", flush=True)
sys.stdin.read()
with Package(sys.argv[1]) as package:
    held = cache.extract(package, "model")
(blob,) = held.path.rglob("*.blob")
assert blob.stat().st_size == int(sys.argv[2])
print("done", flush=True)
"""


@pytest.mark.parametrize("seed", range(4))
def test_sixteen_starts_with_random_kills_leave_one_whole_entry(
    package_of, place, seed, extract, content, start
):
    order = random.Random(seed)
    size = 32 << 20
    path = package_of(order.randbytes(size))
    processes = [start(START, path, size, stdin=subprocess.PIPE) for _ in range(16)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    begin = time.monotonic()
    for process in processes:
        process.stdin.close()
    doomed = set(order.sample(processes, 14))
    for process in sorted(doomed, key=processes.index):
        time.sleep(order.random() * 0.1)
        process.kill()
    took = time.monotonic() - begin
    codes = {process.wait(timeout=60) for process in processes if process not in doomed}
    for process in processes:
        process.stdout.close()
        process.wait()
    assert codes == {0}, took

    last = start(START, path, size, stdin=subprocess.PIPE)
    said, _ = last.communicate(timeout=60)
    assert said == "ready\ndone\n"
    assert [item.name for item in place.iterdir() if item.name != "index"] == keys()
    assert len(keys()) == 1
    held = extract(path)
    with Package(path) as package:
        key = Key(package.digest, "model")
        assert manifest.problem(held.directory, key, compare=True) is None
        assert content(held) == next(held.path.rglob(BLOB)).read_bytes()


def test_a_start_removes_what_all_killed_writers_left(package_of, place, extract, start):
    paths = [package_of(b"%d" % i, name=f"{i}.pt2") for i in range(3)]
    writers = [start(SLOW, path, 30) for path in paths]
    for process in writers:
        assert process.stdout.readline() == "writing\n"
    for process in writers:
        process.kill()
        process.communicate()
    assert len(strays(place)) == 6  # a lock and a half entry each
    held = extract(package_of(b"9"))
    assert strays(place) == []
    assert keys() == [held.key]


def test_a_start_leaves_what_live_writers_write(package_of, place, extract, start):
    slow = start(SLOW, package_of(b"1", name="slow.pt2"), 1)
    assert slow.stdout.readline() == "writing\n"
    held = extract(package_of(b"2"))
    cache.prune(0)
    assert len(strays(place)) == 2
    assert slow.wait(timeout=30) == 0
    slow.communicate()
    assert len(keys()) == 2
    assert held.key in keys()


FORK = """
with Package(sys.argv[1]) as package:
    held = cache.extract(package, "model")
child = os.fork()
if child == 0:
    held.release()
    with Package(sys.argv[1]) as package:
        own = cache.extract(package, "model")
        assert own.path == held.path
        own.release()
    assert cache.prune(0) == 0
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert held.path.exists() and cache.prune(0) == 0
held.release()
assert cache.prune(0) > 0
"""


def test_a_forked_child_leaves_its_parents_alone(package_of, start):
    process = start(FORK, package_of(b"1"))
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_fork_in_the_middle_of_writing_keeps_nobody_waiting(package_of, extract, content):
    children = []

    class Forking(Package):
        def extract(self, model_name, destination, **options):
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            children.append(child)
            super().extract(model_name, destination, **options)

    path = package_of(b"1")
    try:
        held = extract(path, kind=Forking)
        assert content(held) == b"1"
        held.release()
        cut(held.directory)
        assert content(extract(path)) == b"1"
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
