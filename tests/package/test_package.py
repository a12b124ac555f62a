"""Packages: what is read from them, and that nothing hostile or damaged gets past."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest

import aoti
from aoti import ModelNotFoundError, Package, PackageError, PackageNotFoundError

MODEL = "m/data/aotinductor/model"
SO = f"{MODEL}/a.wrapper.so"
METADATA = f"{MODEL}/a.wrapper_metadata.json"
EXTRACTED = {
    SO: bytes(range(256)) * 8,
    METADATA: b'{"AOTI_DEVICE_KEY": "cpu"}',
    f"{MODEL}/a_weights.blob": bytes(100),
    "m/data/constants/constant_0": b"constant",
}
FILES = {**EXTRACTED, f"{MODEL}/a.wrapper.cpp": b"// generated", "m/archive_format": b"pt2"}
# Fields of an entry in a zip's central directory: where they stand, and how.
FLAGS, METHOD, COMPRESSED, SIZE = (8, "<H"), (10, "<H"), (20, "<I"), (24, "<I")
ATTRIBUTES, OFFSET = (38, "<I"), (42, "<I")


def zipped(files=FILES, compression=zipfile.ZIP_STORED) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", compression) as archive:
        for name, content in files.items() if isinstance(files, dict) else files:
            archive.writestr(name, content)
    return memory.getvalue()


DEFLATED = zipped(compression=zipfile.ZIP_DEFLATED)


def changed(data: bytes, field, value: int, entry: str = SO) -> bytes:
    changed = bytearray(data)
    start = data.rindex(b"PK\1\2", 0, data.rindex(entry.encode()))
    struct.pack_into(field[1], changed, start + field[0], value)
    return bytes(changed)


def several(*names):
    return {f"p/data/aotinductor/{name}/x.wrapper.so": b"" for name in names}


@pytest.fixture
def package_of(tmp_path):
    """Write a package, from its bytes or its files; give its path."""

    def write(content, name="m.pt2") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else zipped(content))
        return path

    return write


@pytest.fixture
def refused(tmp_path, package_of):
    """Open and extract a package; give the words in which that is refused."""

    def attempt(content) -> str:
        with pytest.raises(PackageError) as caught, Package(package_of(content)) as package:
            package.extract("model", tmp_path / "out")
        assert [path.name for path in tmp_path.iterdir()] == ["m.pt2"]
        return str(caught.value)

    return attempt


@pytest.fixture
def unpacked(tmp_path) -> Path:
    with zipfile.ZipFile(io.BytesIO(zipped())) as archive:
        archive.extractall(tmp_path / "unpacked")
    return tmp_path / "unpacked"


# -- reading -------------------------------------------------------------------------------------


@pytest.fixture(params=["file", "directory", "directory without prefix"])
def mlp_path(request, packages, tmp_path):
    """The same package in all its forms."""
    if request.param == "file":
        return packages / "mlp.pt2"
    with zipfile.ZipFile(packages / "mlp.pt2") as archive:
        archive.extractall(tmp_path)
    return tmp_path if request.param == "directory" else tmp_path / "mlp"


def test_file_objects_without_a_number_are_read():
    class Bare:
        def __init__(self, content):
            memory = io.BytesIO(content)
            self.read, self.seek, self.tell = memory.read, memory.seek, memory.tell
            self.seekable = self.readable = lambda: True

    with Package(Bare(zipped())) as package:
        assert package.models


def test_every_form_of_a_package_tells_the_same_and_runs(packages, mlp_path, mlp, rows):
    with zipfile.ZipFile(packages / "mlp.pt2") as archive:
        sizes = {info.filename.removeprefix("mlp/"): info.file_size for info in archive.filelist}
    with Package(mlp_path) as package:
        assert package.models == ("model",)
        assert {name.removeprefix("mlp/"): n for name, n in package.files.items()} == sizes
        metadata = package.metadata()
        assert "AOTInductorModel::run_impl" in package.source()
        assert str(mlp_path) in repr(package)
    assert (metadata["AOTI_DEVICE_KEY"], metadata["author"]) == ("cpu", "the tests")
    assert aoti.load_metadata_from_package(mlp_path) == metadata
    with aoti.load(mlp_path) as model:
        assert model(rows).tolist() == mlp(rows).tolist()


def test_the_digest_of_a_directory_changes_with_names_and_contents(unpacked):
    def digest():
        with Package(unpacked) as package:
            return package.digest

    first = digest()
    extra = unpacked / os.fsdecode(b"m/\xff")  # a name that is no UTF-8
    extra.touch()
    second = digest()
    extra.write_text("x")
    assert len({first, second, digest()}) == 3
    extra.unlink()
    assert digest() == first


def test_a_package_stays_the_one_that_was_opened(package_of, tmp_path):
    with Package(package_of(FILES)) as package:
        assert package.digest == hashlib.sha256(zipped()).hexdigest()
        package_of({**FILES, SO: b"another"}, "new.pt2").replace(package.path)
        assert package.digest == hashlib.sha256(zipped()).hexdigest()
        package.extract("model", tmp_path / "out")
    assert (tmp_path / "out" / SO.removeprefix("m/")).read_bytes() == FILES[SO]


@pytest.mark.parametrize("data", [zipped(), DEFLATED])
def test_extraction_leaves_out_the_prefix_and_what_does_not_run(package_of, tmp_path, data):
    with Package(package_of(data)) as package:
        package.extract("model", tmp_path / "out")
    files = [path for path in tmp_path.glob("out/**/*") if path.is_file()]
    contents = {f"m/{path.relative_to(tmp_path / 'out')}": path.read_bytes() for path in files}
    assert contents == EXTRACTED


def test_what_is_extracted_and_its_sizes_are_known_before(package_of):
    with Package(package_of(FILES)) as package:
        files = {f"m/{name}": size for name, size in package.runtime_files("model").items()}
    assert files == {name: len(content) for name, content in EXTRACTED.items()}


def test_the_identity_is_that_of_the_open_file(package_of, unpacked):
    path = package_of(FILES)
    status = path.stat()
    with Package(path) as package:
        before = package.identity
        assert before[:3] == (status.st_dev, status.st_ino, status.st_size)
        path.rename(path.with_name("moved"))
        path.write_text("another")
        assert package.identity[:4] == before[:4]
        os.utime(path.with_name("moved"), (0, 0))
        assert package.identity[3] == 0
        assert package.identity[4] > before[4]
    with Package(unpacked) as package:
        assert package.identity is None


def test_extraction_never_touches_what_is_there(package_of, tmp_path):
    (tmp_path / "out").mkdir()
    with Package(package_of(FILES)) as package, pytest.raises(FileExistsError):
        package.extract("model", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("names", "given", "selected"),
    [
        (["model"], None, "model"),
        (["encoder"], None, "encoder"),
        (["encoder", "model"], None, "model"),
        (["encoder", "decoder"], "decoder", "decoder"),
    ],
)
def test_the_model_that_is_meant_is_selected(package_of, names, given, selected):
    with Package(package_of(several(*names))) as package:
        assert package.models == tuple(sorted(names))
        assert package.select(given) == selected


@pytest.mark.parametrize(("names", "given"), [("ab", None), ("a", "model"), ("a", ""), ("ab", "c")])
def test_no_model_is_guessed(package_of, tmp_path, names, given):
    with Package(package_of(several(*names))) as package:
        with pytest.raises(ModelNotFoundError, match="'a'"):
            package.select(given)
        with pytest.raises(ModelNotFoundError):
            package.extract(given, tmp_path / "out")


# -- what is no package --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["missing.pt2", "missing/m.pt2", "a\0b"])
def test_a_path_with_nothing_there(tmp_path, name):
    with pytest.raises(PackageNotFoundError, match="no package at"):
        Package(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"\x1c\0\0\0ET12" + bytes(100), "ExecuTorch"),
        (b"\x7fELF" + bytes(100), "a shared object; give the whole .pt2"),
        (b"\x10\0\0\0\0\0\0\0{}", "safetensors"),
        (b"\x80\2}q.", "a pickle"),
        (b"\x1f\x8b\x08\0", "gzip; unpack it first"),
        (bytes(257) + b"ustar" + bytes(300), "a tar archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not a zip archive"),
        (zipped()[:-30], "is damaged"),
        (zipped()[:500], "is damaged"),
        ({"m/else": b""}, "no data/aotinductor/<model>/"),
        ({"m/data.pkl": b""}, "a checkpoint"),
        ({"m/code/__torch__/m.py": b""}, "a TorchScript model"),
        ({"m/m.pte": b""}, "an ExecuTorch program"),
        ({"m/models/model.json": b"{}"}, "compile it"),
        ({k: v for k, v in FILES.items() if k != SO}, "package_cpp_only"),
    ],
)
def test_what_is_no_package_is_named(refused, content, words):
    assert words in refused(content)


@pytest.mark.parametrize(
    ("name", "words"), [("program.pt2", r"aoti\.export"), ("mlp.pth", "a checkpoint")]
)
def test_files_of_torch_that_are_no_packages(packages, name, words):
    with pytest.raises(PackageError, match=words):
        Package(packages / name)


NO_JSON = [b"", b"\xff\xfe\xff", b"[" * 100_000, b"1" * 5000]


@pytest.mark.parametrize("content", [None, *NO_JSON, b'["a"]', b'{"a": 1}'])
def test_metadata_that_is_none(package_of, content):
    words = "not valid JSON" if content in NO_JSON else "no metadata|not an object of strings"
    files = {**FILES, METADATA: content}
    if content is None:
        del files[METADATA]
    with Package(package_of(files)) as package, pytest.raises(PackageError, match=words):
        package.metadata()


# -- hostile names -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", "../x m/../../x /etc/x C:/x m//x m/./x m\\..\\x".split())
def test_names_that_lead_elsewhere_are_refused(refused, name):
    assert "forbidden name" in refused({**FILES, name: b"x"})


@pytest.mark.parametrize("name", [f"{MODEL}/{'x' * 250}", f"{MODEL}{'x' * 250}/x"])
def test_names_that_no_file_system_takes_are_refused(refused, name):
    assert "too long" in refused({**FILES, name: b"x"})


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"a_weights.blob", b"a.wrapper.so\0x"), (b"_weights", b"\0weights"), (b"m/arch", b"\0/arch")],
)
def test_names_are_not_cut_at_a_nul(refused, old, new):
    assert "forbidden name" in refused(zipped().replace(old, new))


@pytest.mark.parametrize("name", [SO, SO.removeprefix("m/"), SO.replace("m", "n", 1)])
def test_two_files_of_one_name_are_refused(refused, name):
    with pytest.warns() if name == SO else contextlib.nullcontext():
        data = zipped([*FILES.items(), (name, b"x")])
    assert "two files of the same name" in refused(data)


def test_a_link_in_an_archive_is_refused(refused):
    assert "symbolic link" in refused(changed(zipped(), ATTRIBUTES, (stat.S_IFLNK | 0o777) << 16))


@pytest.mark.parametrize("target", ["/etc/hostname", "/etc", "missing", "archive_format"])
def test_a_link_in_a_directory_is_refused(unpacked, target):
    Package(unpacked).close()
    (unpacked / "m/link").symlink_to(target)
    with pytest.raises(PackageError, match="symbolic link: 'm/link'"):
        Package(unpacked)


# -- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [zipped(), DEFLATED])
@pytest.mark.parametrize("name", EXTRACTED)
def test_a_flipped_bit_is_found(refused, name, data):
    at = data.index(name.encode()) + len(name) + 3
    assert "is damaged" in refused(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])


def test_a_flipped_bit_in_metadata_is_found_by_reading_it(package_of):
    with Package(package_of(zipped().replace(b'"cpu"', b'"gpu"'))) as package:
        with pytest.raises(PackageError, match="is damaged"):
            package.metadata()
        package.source()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        (FLAGS, 1, "encrypted"),
        *((METHOD, number, "compressed in a way") for number in (1, 12, 14, 99)),
        (OFFSET, 0x7F000000, "outside"),
        (SIZE, 0xFFFFFFFE, "claims to hold"),
        *((SIZE, size, "is damaged") for size in (0, 2047, 2049)),
        *((COMPRESSED, size, "is damaged") for size in (0, 100)),
        *((METHOD, 8, "is damaged"), (OFFSET, 1, "is damaged")),
    ],
)
@pytest.mark.parametrize("data", [zipped(), DEFLATED])
def test_an_entry_that_is_not_what_it_says(refused, data, field, value, words):
    if data is DEFLATED and field is METHOD and value == 8:
        value = 0
    assert words in refused(changed(data, field, value))


def test_metadata_that_inflates_is_read_no_further_than_it_says(package_of):
    bomb = zipped({**FILES, METADATA: bytes(50 << 20)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(PackageError, match="claims to hold"):
        Package(package_of(bomb))
    with Package(package_of(changed(bomb, SIZE, 10, METADATA))) as package:
        tracemalloc.start()
        with pytest.raises(PackageError, match="is damaged"):
            package.metadata()
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
        tracemalloc.stop()


def test_metadata_of_absurd_size_is_not_read(unpacked):
    os.truncate(unpacked / METADATA, 1 << 39)
    with Package(unpacked) as package, pytest.raises(PackageError, match="too large"):
        package.metadata()
    os.truncate(unpacked / METADATA, 1 << 41)
    with pytest.raises(PackageError, match="the limit is"):
        Package(unpacked)


# -- executable stacks ---------------------------------------------------------------------------


def stack_flags(elf: bytes) -> list[int]:
    """The flags of an ELF file's PT_GNU_STACK headers, as `readelf -lW` shows them."""
    (table,), (size, count) = struct.unpack_from("<Q", elf, 32), struct.unpack_from("<HH", elf, 54)
    headers = [struct.unpack_from("<II", elf, table + i * size) for i in range(count)]
    return [flags for kind, flags in headers if kind == 0x6474E551]


def test_no_executable_stack_is_left(packages, tmp_path):
    with Package(packages / "mlp.pt2") as package:
        (name,) = (name for name in package.files if name.endswith(".so"))
        package.extract("model", tmp_path / "out")
    with zipfile.ZipFile(packages / "mlp.pt2") as archive:
        before = archive.read(name)
    after = (tmp_path / "out" / name.removeprefix("mlp/")).read_bytes()
    assert stack_flags(before) == [7]  # rwx, as gcc links it
    assert stack_flags(after) == [6]
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 1


@pytest.mark.parametrize("length", [0, 63, 64, 70, 4096])
@pytest.mark.parametrize(("size", "count"), [(0, 65535), (1, 65535), (56, 2)])
@pytest.mark.parametrize("table", [64, 2**63 - 1, 2**64 - 1])
@pytest.mark.parametrize("kind", [b"\x7fELF\1\1", b"\x7fELF\2\1", b"\x7fELF\2\2"])
def test_what_is_no_whole_shared_object_is_only_copied(
    package_of, tmp_path, kind, table, size, count, length
):
    header = kind.ljust(32, b"\0") + struct.pack("<Q14xHH6x", table, size, count)
    content = header.ljust(length, b"\xff")[:length]
    with Package(package_of({**FILES, SO: content})) as package:
        package.extract("model", tmp_path / "out")
    assert (tmp_path / "out" / SO.removeprefix("m/")).read_bytes() == content


def test_a_file_that_goes_away_is_told_in_words(unpacked, tmp_path):
    with Package(unpacked) as package:
        (unpacked / SO).unlink()
        with pytest.raises(PackageError) as caught:
            package.extract("model", tmp_path / "target")
    assert str(caught.value).endswith(f"cannot be read: No such file or directory: {unpacked / SO}")


def test_a_name_of_a_model_may_contain_slashes(tmp_path, package_of):
    other = {name.replace("/model/", "/a/b/"): content for name, content in EXTRACTED.items()}
    with Package(package_of(FILES | other)) as package:
        assert set(package.models) == {"model", "a/b"}
        assert package.metadata("a/b") == {"AOTI_DEVICE_KEY": "cpu"}
        package.extract("a/b", tmp_path / "out")
    assert (tmp_path / "out/data/aotinductor/a/b/a.wrapper.so").is_file()
    assert not (tmp_path / "out/data/aotinductor/model").exists()


def test_a_folder_inside_of_a_model_is_not_a_model(package_of):
    with Package(package_of({**FILES, f"{MODEL}/cache/notes.txt": b""})) as package:
        assert list(package.models) == ["model"]


def test_torchbind_objects_are_extracted_beside_the_code(tmp_path, package_of):
    files = {**FILES, "m/data/constants/custom_obj_0": b"object"}
    with Package(package_of(files)) as package:
        package.extract("model", tmp_path / "out")
        assert "data/aotinductor/model/custom_obj_0" in package.runtime_files("model")
    assert (tmp_path / "out/data/aotinductor/model/custom_obj_0").read_bytes() == b"object"
    assert (tmp_path / "out/data/constants/custom_obj_0").read_bytes() == b"object"
