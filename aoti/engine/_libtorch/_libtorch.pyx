# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""The libtorch engine, for one torch minor version and backend: csrc/aoti/libtorch.

Importing this needs the libtorch that it was built for to be loaded. Nothing checks that here: see
aoti.engine.libtorch.
"""

from cpython.pycapsule cimport PyCapsule_New
from libcpp.string cimport string
from libcpp.unordered_map cimport unordered_map

from aoti.engine.cxx.libtorch_engine cimport libtorch_engine
from aoti.engine.cxx.package_loader cimport AOTIModelPackageLoader

from os import fsencode

cdef const char* _ENGINE = "aoti_engine"  # the capsule keeps this pointer


def engine() -> object:
    """Return the engine's table of functions, as a capsule named ``aoti_engine``."""
    return PyCapsule_New(<void*>libtorch_engine(), _ENGINE, NULL)


def build_info() -> str:
    """Return what this module was built from, as JSON. See `aoti.build_info`."""
    return libtorch_engine().details.decode()


def load_metadata_from_package(str path, str model_name) -> dict[str, str]:
    """Read the metadata of a package with libtorch's own reader.

    aoti reads packages itself; tests compare the two. libtorch's reader is not thread-safe: it must
    not run while another thread reads a package or loads a model.

    Parameters
    ----------
    path : str
        The package. libtorch extracts all of it to read this.
    model_name : str
        The model in it.

    Raises
    ------
    RuntimeError
        libtorch cannot read it.
    """
    cdef string path_ = fsencode(path)
    cdef string model_name_ = fsencode(model_name)
    cdef unordered_map[string, string] found
    with nogil:
        found = AOTIModelPackageLoader.load_metadata_from_package(path_, model_name_)
    return {pair.first.decode(): pair.second.decode() for pair in found}
