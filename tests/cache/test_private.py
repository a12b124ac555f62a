"""Private extractions: gone when nobody needs them, and never in the way of a fork."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("place")


@pytest.fixture
def private(package_of, tmp_path, extract):
    return lambda text=b"1", **options: extract(package_of(text), shared=False, **options)


def test_a_private_extraction_goes_with_its_last_user(private, place, tmp_path, content):
    first, second = private(), private()
    assert first.path == second.path
    assert content(first) == b"1"
    root = tmp_path / f"tmp/aoti-{os.geteuid()}"
    assert first.directory.parent.parent == root
    assert {path.stat().st_mode & 0o777 for path in (root, first.directory.parent)} == {0o700}
    for _ in range(2):
        first.release()
        assert content(second) == b"1"
    second.release()
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not place.exists()


def test_a_lost_private_extraction_goes_with_the_garbage(private, tmp_path):
    private()
    gc.collect()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_private_content_keeps_its_path_for_the_life_of_the_process(private, content):
    paths = set()
    for text in (b"1", b"2", b"1", b"2"):
        held = private(text)
        assert content(held) == text
        paths.add((text, held.path))
        held.release()
    assert len(paths) == len({path for _, path in paths}) == 2


def test_what_cleaned_up_the_temporary_directory_does_no_harm(private, tmp_path, content):
    first = private()
    shutil.rmtree(tmp_path / f"tmp/aoti-{os.geteuid()}")
    second = private()
    assert content(second) == b"1"
    first.release()
    assert content(second) == b"1"
    second.release()


def test_users_of_a_temporary_directory_stay_there(private, tmp_path, monkeypatch):
    first = private()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "other"))
    (tmp_path / "other").mkdir()
    second = private()
    assert second.path == first.path
    first.release()
    second.release()
    third = private()
    assert third.path.is_relative_to(tmp_path / "other")
    third.release()
    assert list((tmp_path / "other").iterdir()) == []


PRIVATE = """
with Package(sys.argv[1]) as package:
    held = cache.extract(package, "model", shared=False)
print(held.path, flush=True)
if sys.argv[2] == "wait":
    sys.stdin.read()
"""


@pytest.mark.parametrize("shared", [True, False])
def test_the_next_start_removes_what_a_killed_one_left(
    package_of, tmp_path, shared, extract, start
):
    path = package_of(b"1")
    processes = [start(PRIVATE, path, "wait", stdin=subprocess.PIPE) for _ in range(3)]
    paths = [Path(process.stdout.readline().strip()) for process in processes]
    assert len(set(paths)) == 3
    for process in processes[:2]:
        process.kill()
        process.communicate()
    assert all(path.exists() for path in paths)
    extract(path, shared=shared).release()
    assert [path.exists() for path in paths] == [False, False, True]
    assert len(list((tmp_path / f"tmp/aoti-{os.geteuid()}").iterdir())) == 2
    processes[2].communicate(timeout=30)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_private_extraction_goes_at_exit(package_of, tmp_path, start):
    assert start(PRIVATE, package_of(b"1"), "").communicate(timeout=30)[0]
    assert list((tmp_path / "tmp").iterdir()) == []


PRIVATE_FORK = """
def extract():
    with Package(sys.argv[1]) as package:
        return cache.extract(package, "model", shared=False)

held = extract()
child = os.fork()
if child == 0:
    own = extract()
    assert own.path != held.path
    held.release()
    own.release()
    assert held.path.exists() and not own.path.exists()
    kept = extract()
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert held.path.exists()
assert len(os.listdir(held.directory.parent.parent)) == 2
"""


def test_a_forked_child_has_private_extractions_of_its_own(package_of, tmp_path, start):
    process = start(PRIVATE_FORK, package_of(b"1"))
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_processes_with_private_extractions_come_and_go(package_of, start):
    path = package_of(b"1")
    program = """
for _ in range(30):
    with Package(sys.argv[1]) as package:
        held = cache.extract(package, "model", shared=False)
    assert (held.path / "data/aotinductor/model/a.wrapper.so").exists()
    held.release()
    cache.private.swept.clear()
"""
    processes = [start(program, path) for _ in range(6)]
    assert [process.communicate(timeout=60) and process.returncode for process in processes] == [
        0
    ] * 6
