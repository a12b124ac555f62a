"""Locks between processes: shared, exclusive, removed, and gone with their holder."""

from __future__ import annotations

import os
import signal
import subprocess
import threading

import pytest

from aoti.cache.filelock import lock


@pytest.fixture
def file(tmp_path):
    return tmp_path / "a.lock"


def test_exclusive_locks_exclude_all_others_and_shared_ones_only_exclusive_ones(file):
    first = lock(file, exclusive=True)
    assert lock(file, exclusive=True, wait=False) is None
    assert lock(file, exclusive=False, wait=False) is None
    first.release()
    first.release()  # harmless
    shared = [lock(file, exclusive=False) for _ in range(2)]
    assert lock(file, exclusive=True, wait=False) is None
    shared[0].release()
    assert lock(file, exclusive=True, wait=False) is None
    shared[1].release()
    lock(file, exclusive=True, wait=False).release()


def test_a_lock_ends_with_its_object(file):
    held = lock(file, exclusive=True)
    del held
    lock(file, exclusive=True, wait=False).release()


def test_who_waits_for_a_removed_lock_gets_one_on_a_new_file(file):
    first = lock(file, exclusive=True)
    inode = file.stat().st_ino
    got = []
    keep = file.open("rb")  # keeps the inode's number from being used again
    waiter = threading.Thread(target=lambda: got.append(lock(file, exclusive=True)))
    waiter.start()
    waiter.join(0.1)
    assert got == []
    assert first.in_place()
    first.remove()
    waiter.join(10)
    keep.close()
    assert got[0].in_place()
    assert file.stat().st_ino != inode
    got[0].remove()
    assert not file.exists()


def test_removing_leaves_a_file_that_somebody_else_put_there(file):
    held = lock(file, exclusive=True)
    file.rename(file.with_name("elsewhere"))
    file.write_text("theirs")
    assert not held.in_place()
    held.remove()
    assert file.read_text() == "theirs"


def test_only_exclusive_locks_make_a_file_and_only_if_they_may(file, tmp_path):
    for options in ({"exclusive": False}, {"exclusive": True, "create": False}):
        with pytest.raises(FileNotFoundError):
            lock(file, **options)
    file.symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic links"):
        lock(file, exclusive=True)
    assert not (tmp_path / "target").exists()


HOLD = """
import sys
from pathlib import Path
from aoti.cache.filelock import lock
held = lock(Path(sys.argv[1]), exclusive=True)
print("held", flush=True)
sys.stdin.read()
"""


def test_the_kernel_drops_the_lock_of_a_killed_process(file, start):
    process = start(HOLD, file, stdin=subprocess.PIPE)
    assert process.stdout.readline() == "held\n"
    assert lock(file, exclusive=True, wait=False) is None
    threading.Timer(0.2, process.kill).start()
    lock(file, exclusive=True).release()
    process.communicate()


def test_programs_that_are_started_do_not_inherit_it(file):
    held = lock(file, exclusive=True)
    process = subprocess.Popen(["/bin/sleep", "60"])
    held.release()
    lock(file, exclusive=True, wait=False).release()
    process.kill()
    process.wait()


def test_removing_a_lock_takes_it_from_forked_children_too(file):
    held = lock(file, exclusive=True)
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        os.link(file, file.with_name("same"))
        held.remove()
        lock(file.with_name("same"), exclusive=True, wait=False).release()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
