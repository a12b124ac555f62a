"""Extractions that something changed: noticed, said, and written again."""

from __future__ import annotations

import json
import logging
import os
import shutil

import pytest

from aoti.cache import cache

pytestmark = pytest.mark.usefixtures("place")
SO = "a.wrapper.so"


def code(extraction):
    return next(extraction.directory.rglob(SO))


def rewritten(extraction):
    path = code(extraction)
    status = path.stat()
    path.write_bytes(b"2")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replaced(extraction):
    path = code(extraction)
    other = path.with_suffix(".other")
    other.write_bytes(b"2")
    other.rename(path)


def linked(extraction):
    path = code(extraction)
    other = extraction.directory.parent / "other"
    other.write_bytes(b"1")
    path.unlink()
    path.symlink_to(other)


def opened_to_others(extraction):
    code(extraction).chmod(0o666)


def folder_opened_to_others(extraction):
    code(extraction).parent.chmod(0o777)


def given_away(extraction):
    os.chown(code(extraction), 12345, 12345)


CHANGES = [rewritten, replaced, linked, opened_to_others, folder_opened_to_others, given_away]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("shared", [True, False])
def test_what_was_changed_is_extracted_again(
    package_of, extract, content, change, shared, caplog, place
):
    if change is given_away and os.geteuid():
        pytest.skip("needs root, to give a file away")
    caplog.set_level(logging.WARNING, logger="aoti")
    path = package_of(b"1")
    first = extract(path, shared=shared)
    change(first)
    second = extract(path, shared=shared)
    assert content(second) == b"1"
    (facts,) = {file.lstat().st_mode & 0o777 for file in second.path.rglob(SO)}
    assert facts == 0o600
    if shared:
        (said,) = caplog.messages
        assert "is not as it was written (" in said and str(second.directory) in said
    first.release()
    second.release()
    (place / "other").unlink(missing_ok=True)


def test_contents_are_compared_if_asked(package_of, extract, content):
    path = package_of(b"1")
    first = extract(path)
    code(first).write_bytes(b"2")
    record = first.directory / "manifest.json"
    manifest = json.loads(record.read_text())
    for name, (size, digest, _) in manifest["files"].items():
        time = first.directory.joinpath(name).stat().st_ctime_ns
        manifest["files"][name] = (size, digest, time)
    record.write_text(json.dumps(manifest))
    assert code(extract(path)).read_bytes() == b"2"
    assert content(extract(path, compare=True)) == b"1"


def test_a_file_that_was_added_is_noticed_if_asked(package_of, extract):
    path = package_of(b"1")
    first = extract(path)
    planted = code(first).with_name("libplanted.so")
    planted.write_bytes(b"x")
    extract(path, compare=True)
    assert not planted.exists()


def test_a_copy_is_read_once(package_of, extract, place, tmp_path, monkeypatch, caplog):
    """A copied cache has other times; they are recorded after a look at the contents."""
    caplog.set_level(logging.WARNING, logger="aoti")
    path = package_of(b"1")
    before = (extract(path).directory / "manifest.json").read_bytes()
    shutil.copytree(place.parent, tmp_path / "copy")
    monkeypatch.setenv("AOTI_CACHE_DIR", str(tmp_path / "copy"))
    held = extract(path)
    assert held.directory.is_relative_to(tmp_path / "copy")
    after = (held.directory / "manifest.json").read_bytes()
    assert after != before and len(after) == len(before)
    extract(path)
    assert (held.directory / "manifest.json").read_bytes() == after
    assert caplog.messages == []


@pytest.mark.parametrize("umask", [0, 0o22, 0o77])
@pytest.mark.parametrize("shared", [True, False])
def test_modes_do_not_depend_on_the_umask(package_of, extract, umask, shared, place):
    path = package_of(b"1")
    old = os.umask(umask)
    try:
        held = extract(path, shared=shared)
    finally:
        os.umask(old)
    kept = [held.directory, *held.directory.rglob("*")]
    assert {item.stat().st_mode & 0o777 for item in kept if item.is_dir()} == {0o700}
    assert {item.stat().st_mode & 0o777 for item in kept if item.is_file()} == {0o600}
    assert held.directory.parent.stat().st_mode & 0o777 == 0o700
    held.release()


def test_a_copy_that_cannot_be_renewed_is_used(package_of, extract, monkeypatch, content):
    path = package_of(b"1")
    held = extract(path)
    code(held).chmod(0o400)
    real = os.open

    def read_only(name, flags, *rest, **options):
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise PermissionError(13, "read-only", name)
        return real(name, flags, *rest, **options)

    monkeypatch.setattr(os, "open", read_only)
    assert content(extract(path)) == b"1"
    assert len(cache.entries()) == 1
