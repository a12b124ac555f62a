"""``aoti cache``, completion by the shell, and what a start imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from aoti.cache import cache
from aoti.cli.group import run


def test_what_is_cached_is_listed_and_removed_unless_in_use(
    place, package_of, extract, tmp_path, capsys
):
    assert run(["cache", "list"]) == 0
    assert "is empty" in capsys.readouterr().out
    extract(package_of(b"a" * 100, name="a.pt2")).release()
    used = extract(package_of(b"b" * 100, name="b.pt2"))
    assert run(["cache", "list", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["location"] == str(place)
    assert document["bytes"] == sum(entry["bytes"] for entry in document["entries"])
    assert [entry["model"] for entry in document["entries"]] == ["model", "model"]
    assert document["entries"][1]["sha256"] == used.digest
    assert run(["cache", "list"]) == 0
    assert used.digest[:12] in capsys.readouterr().out

    assert run(["cache", "prune", "--max-size", "1G"]) == 0
    assert "removed 0.0 MB" in capsys.readouterr().out
    assert run(["cache", "prune", "--json"]) == 0
    removed = json.loads(capsys.readouterr().out)
    assert removed["removed_bytes"] == document["entries"][0]["bytes"]
    assert [entry.key[:64] for entry in cache.entries()] == [used.digest]
    used.release()
    assert run(["cache", "prune"]) == 0
    assert cache.entries() == []


def test_a_size_that_is_none_is_one_line(capsys):
    assert run(["cache", "prune", "--max-size", "much"]) == 2
    assert capsys.readouterr().err.startswith("aoti: --max-size 'much' is not a size")


def test_a_group_without_a_command_shows_its_help(capsys):
    for arguments in (["cache"], []):
        assert run(arguments) == 2
        assert "\nCommands:\n" in capsys.readouterr().err


def complete(words, **env):
    process = subprocess.run(
        [sys.executable, "-c", "from aoti.cli.group import main; main()"],
        env={**os.environ, "_AOTI_COMPLETE": "bash_complete", "COMP_WORDS": words,
             "COMP_CWORD": str(len(words.split(" ")) - 1), **env},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.stderr == ""
    return process.stdout.split()


def test_the_shell_completes_verbs_options_and_models(tmp_path):
    (tmp_path / "minilm.pt2").touch()
    (tmp_path / "other.pt2").touch()
    assert complete("aoti in") == ["plain,infer", "plain,info"]
    assert "plain,--intra-op-threads" in complete("aoti infer --int")
    models = complete("aoti infer -m mi", AOTI_MODELS_DIR=str(tmp_path))
    assert models == ["plain,minilm", "file,mi"]
    assert complete("aoti info mi", AOTI_MODELS_DIR="/none") == ["file,mi"]


def test_there_is_a_script_for_each_shell():
    for shell in ("bash", "zsh", "fish"):
        process = subprocess.run(
            [sys.executable, "-c", "from aoti.cli.group import main; main()"],
            env={**os.environ, "_AOTI_COMPLETE": f"{shell}_source"},
            capture_output=True,
            text=True,
            check=False,
        )
        if "Bash version" in process.stderr:
            pytest.skip("bash is missing or too old")
        assert "_AOTI_COMPLETE" in process.stdout


def test_info_starts_without_what_it_does_not_need(packages, run_python):
    program = """
import sys
from aoti.cli.group import run
assert run(["info", sys.argv[1]]) == 0
heavy = "numpy torch asyncio concurrent.futures importlib.metadata tomllib difflib aoti.model"
print([name for name in heavy.split() if name in sys.modules])
"""
    assert run_python(program, packages / "mlp.pt2").splitlines()[-1] == "[]"
