"""Places for extractions: no one else may change, replace or redirect them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from aoti import ConfigError
from aoti.cache.place import Place

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")


def make(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True)
    return path


@pytest.mark.parametrize("mode", [0o777, 0o707, 0o2777])
def test_a_directory_above_that_others_may_write_is_refused(tmp_path, mode):
    place = make(tmp_path / "shared/mine/v1")
    (tmp_path / "shared").chmod(mode)
    with pytest.raises(ConfigError) as caught:
        Place(place, "AOTI_CACHE_DIR").check()
    line = str(caught.value)
    assert f"{tmp_path}/shared: others may write to it (chmod go-w)" in line
    assert "set AOTI_CACHE_DIR to a directory below directories that only you can change" in line


def test_a_sticky_directory_above_is_fine(tmp_path):
    place = make(tmp_path / "shared/mine/v1")
    (tmp_path / "shared").chmod(0o1777)
    Place(place, "AOTI_CACHE_DIR").check()


def test_a_directory_of_the_users_own_group_is_fine(tmp_path, monkeypatch):
    place = make(tmp_path / "home/mine/v1")
    (tmp_path / "home").chmod(0o770)
    group = (tmp_path / "home").stat().st_gid
    user = type("user", (), {"pw_name": "me"})
    members = {"gr_name": "me", "gr_mem": [], "gr_gid": group}
    monkeypatch.setattr("pwd.getpwuid", lambda _: user)
    monkeypatch.setattr("grp.getgrgid", lambda _: type("group", (), members))
    Place(place, "AOTI_CACHE_DIR").check()
    for other in ({"gr_name": "staff"}, {"gr_mem": ["me", "you"]}):
        monkeypatch.setattr("grp.getgrgid", lambda _, o=other: type("group", (), members | o))
        with pytest.raises(ConfigError, match=r"home: others may write to it"):
            Place(place, "AOTI_CACHE_DIR").check()


@needs_root
def test_a_directory_above_of_another_user_is_refused(tmp_path):
    place = make(tmp_path / "theirs/mine/v1")
    os.chown(tmp_path / "theirs", 12345, 12345)
    with pytest.raises(ConfigError, match=r"theirs: it belongs to another user \(12345\)"):
        Place(place, "AOTI_CACHE_DIR").check()


@needs_root
def test_links_are_followed_as_the_kernel_does(tmp_path):
    make(tmp_path / "real/deep/v1")
    (tmp_path / "links").mkdir()
    (tmp_path / "links/first").symlink_to("../links/second")
    (tmp_path / "links/second").symlink_to(tmp_path / "real/deep/../deep")
    place = Place(tmp_path / "links/first/v1", "TMPDIR")
    place.check()
    os.lchown(tmp_path / "links/second", 12345, 12345)
    with pytest.raises(ConfigError, match=r"links/second: it belongs to another user"):
        place.check()
    os.lchown(tmp_path / "links/second", 0, 0)
    (tmp_path / "real").chmod(0o777)
    with pytest.raises(ConfigError, match=r"real: others may write to it"):
        place.check()


def test_links_in_a_circle_are_an_error(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError) as caught:
        Place(tmp_path / "a/v1", "TMPDIR").check()
    assert caught.value.errno == errno.ELOOP


def test_a_temporary_directory_where_none_can_be_made_is_an_error(package_of, extract, monkeypatch):
    monkeypatch.setenv("TMPDIR", "/proc")
    with pytest.raises(ConfigError, match=r"set TMPDIR to a directory"):
        extract(package_of(b"1"), shared=False)


@pytest.mark.parametrize("why", ["others may write", "not writable"])
def test_a_default_place_that_cannot_be_used_is_not_needed(
    package_of, extract, content, tmp_path, monkeypatch, caplog, why
):
    monkeypatch.delenv("AOTI_CACHE_DIR")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    (tmp_path / "home").mkdir()
    if why == "not writable":
        (tmp_path / "home/aoti").touch()
    else:
        (tmp_path / "home").chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    caplog.set_level("WARNING", logger="aoti")
    held = extract(package_of(b"1"))
    assert content(held) == b"1"
    assert held.directory.is_relative_to(tmp_path / "tmp")
    (said,) = caplog.messages
    assert "set AOTI_CACHE_DIR to a directory" in said and "extracts its models for itself" in said
    held.release()
