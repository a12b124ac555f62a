"""The names of the files inside a package, and how a model's code marks where its weights are.

The format is that of ``torch/csrc/export/pt2_archive_constants.h`` and
``torch/_inductor/package/package.py``. All names share one prefix, usually the stem of the package,
which is lost when a model is extracted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from aoti.errors import PackageError

if TYPE_CHECKING:
    from aoti.package.elf import SharedObject

_MODELS = "data/aotinductor"
_CONSTANTS = "data/constants"
_PICKLES = "data/weights"

# A file of a model: its name without the prefix, and the name of the model.
# The name may contain slashes.
MODEL_FILE = rf"(?:[^/]+/)?({_MODELS}/((?s:.+))/[^/]+)"
# A constant that operators outside of the package read: its name without the prefix.
CONSTANT_FILE = rf"(?:[^/]+/)?({_CONSTANTS}/[^/]+)"
# A TorchBind object. Packages have it among the constants, libtorch reads it beside the code.
CUSTOM_OBJECT = rf"(?:[^/]+/)?{_CONSTANTS}/(custom_obj_[^/]+)"

# Endings of the names of a model's files.
CODE = (".wrapper.so", ".so")  # the shared object, by preference
SOURCE = ".wrapper.cpp"  # the generated C++ around the kernels
GENERATED = ".cpp"  # all generated C++, that of the kernels included
METADATA = ("wrapper_metadata.json", "_metadata.json")  # by preference
KERNEL_METADATA = ".kernel_metadata.json"
GPU_KERNELS = (".cubin", ".fatbin")
WEIGHTS = "_weights.blob"  # weights outside of the code, as they are used
WRAPPER_WEIGHTS = f".wrapper{WEIGHTS}"
BLOB = ".blob"  # any file of weights
PICKLED_WEIGHTS = "weights_config.json"  # the list of weights that are kept as pickles

# The symbols at the start and the end of the weights in a model's code.
WEIGHTS_START, WEIGHTS_END = "_binary_constants_bin_start", "_binary_constants_bin_end"

_OTHER_KINDS = (
    (
        r"(^|/)models/[^/]+\.json$",
        "is an exported program (torch.export.save), not a compiled one; compile it: "
        "aoti.export(torch.export.load(...), path=...)",
    ),
    (r"\.pte$", "holds an ExecuTorch program: run it with executorch"),
    (
        r"(^|/)code/__torch__",
        "is a TorchScript model: export the module itself with aoti.export",
    ),
    (
        r"(^|/)data\.pkl$",
        "is a checkpoint (torch.save): load it into its module and export that with aoti.export",
    ),
)

# Functions of a model's code. libtorch's runners call them (model_container_runner.cpp in
# torch/csrc/inductor/aoti_runner): without one of the Runs, libtorch loads the model all the same
# and jumps to address 0 at the first call.
CONTAINER = "AOTInductorModelContainer"
RUN_FUNCTIONS = tuple(
    CONTAINER + name
    for name in (
        "CreateWithDevice",
        "Delete",
        "Run",
        "RunSingleThreaded",
        "GetNumOutputs",
        "GetNumConstants",
        "GetConstantName",
        "GetConstantOriginalFQN",
        "GetConstantDtype",
        "GetCallSpec",
    )
)


def model_folder(model: str) -> str:
    """The folder of a model's files, without the package's prefix."""
    return f"{_MODELS}/{model}"


def is_model(files: Iterable[str]) -> bool:
    """Whether these are the files of a model, and not of a folder inside of one."""
    return any(name.endswith((*CODE, SOURCE, *METADATA)) for name in files)


def pickled_weight(name: str) -> str | None:
    """The ending of a pickled weight's file; None if `name` cannot be the name of a weight."""
    return f"{_PICKLES}/{name}" if re.fullmatch(r"weight_\d{1,9}", name) else None


def golden_values(model: str) -> str:
    """The file of a model's golden values, below ``extra/``: see aoti.golden."""
    return f"aoti/golden/{model}.json"


def other_kind(files: Iterable[str]) -> str:
    """The kind of an archive without a model, and what to do: "is a checkpoint ..."."""
    for pattern, kind in _OTHER_KINDS:
        if any(re.search(pattern, name) for name in files):
            return kind
    return f"is not an AOTInductor package: no {model_folder('<model>')}/ in it"


def operator_list(code: Path) -> Path:
    """The file beside a model's code that lists the operators that it calls by name."""
    return code.with_suffix(".json")


def weights_file(code: Path) -> Path:
    """The file beside a model's code that the code itself would read its weights from."""
    return code.with_name(f"{code.stem}{WEIGHTS}")


def find_code(folder: Path) -> Path:
    """The shared object among a model's extracted files.

    Raises
    ------
    PackageError
        There is none, or more than one.
    """
    found = next(filter(None, (sorted(folder.glob(f"*{ending}")) for ending in CODE)), [])
    if len(found) != 1:
        raise PackageError(f"the model has {len(found)} shared objects, where one is expected")
    return found[0]


def find_weights(folder: Path) -> Path | None:
    """The file of weights among a model's extracted files; None if there is none."""
    blobs = sorted(folder.glob(f"*{BLOB}"))
    named = [blob for blob in blobs if blob.name.endswith(WRAPPER_WEIGHTS)]
    return next(iter(named or blobs), None)


def weights_size(so: SharedObject) -> int | None:
    """How many bytes a model's code has where it expects its weights; None if it does not say.

    The size shows where the weights are (`AotCodeCompiler.compile` in
    ``torch/_inductor/codecache.py``). 1 byte: there are none. 8 bytes: the size of a file beside
    the code. 16 bytes: size and magic number of weights that follow the code in the same file.
    Otherwise these are the weights themselves: on the CPU a multiple of 64 bytes; on a GPU any
    size, so 8 and 16 bytes may be weights too.

    Raises
    ------
    PackageError
        The file is damaged.
    """
    if WEIGHTS_START not in so.defined or WEIGHTS_END not in so.defined:
        return None
    size = so.defined[WEIGHTS_END] - so.defined[WEIGHTS_START]
    if size < 0:
        raise PackageError(f"{so.path.name} is damaged: its weights end before they begin")
    return size
