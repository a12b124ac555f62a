"""Files that are complete or not there."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading

import pytest

from aoti._files import replacing


def test_a_file_takes_its_place_when_it_is_complete(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with replacing(target) as partial:
        partial.write_text("new")
        assert partial.name == target.name
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]
    umask = os.umask(0)
    os.umask(umask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask


def test_nothing_changes_if_writing_fails(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(KeyError), replacing(target) as partial:
        partial.write_text("new")
        raise KeyError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_its_target_is_written(tmp_path, exists):
    link, place = tmp_path / "link.txt", tmp_path / "store"
    place.mkdir()
    link.symlink_to(place / "a.dat")
    if exists:
        (place / "a.dat").write_text("old")
    with replacing(link) as partial:
        partial.write_text("new")
        assert partial.name == link.name
    assert link.is_symlink()
    assert [path.read_text() for path in place.iterdir()] == ["new"]
    assert sorted(tmp_path.iterdir()) == [link, place]


def test_a_file_keeps_its_permissions(tmp_path):
    target = tmp_path / "a.txt"
    target.touch(0o600)
    with replacing(target) as partial:
        partial.write_text("new")
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_pipe_and_a_device_are_written_to(tmp_path):
    pipe, got = tmp_path / "a.txt", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    with replacing(pipe) as partial:
        partial.write_text("new")
    reader.join()
    assert got == ["new"]
    assert list(tmp_path.iterdir()) == [pipe]
    assert pipe.is_fifo()

    (tmp_path / "null.txt").symlink_to(os.devnull)
    with replacing(tmp_path / "null.txt") as partial:
        partial.write_text("new")
    assert stat.S_ISCHR((tmp_path / "null.txt").stat().st_mode)


def test_what_others_write_to_standard_output_stays(tmp_path):
    link = tmp_path / "link.txt"
    link.symlink_to("/proc/self/fd/1")
    program = (
        "import pathlib, sys, aoti._files as files\n"
        "print('before', flush=True)\n"
        "with files.replacing(pathlib.Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('content\\n')\n"
        "print('after')"
    )
    with (tmp_path / "out").open("w") as out:
        subprocess.run([sys.executable, "-c", program, link], stdout=out, check=True)
    assert (tmp_path / "out").read_text().split() == ["before", "content", "after"]


def test_a_directory_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(IsADirectoryError), replacing(tmp_path):
        pytest.fail("the block was run")
