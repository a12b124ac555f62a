"""torch/csrc/inductor/aoti_package/model_package_loader.h: libtorch's own loader of packages."""

from libcpp cimport bool as cbool
from libcpp.string cimport string
from libcpp.unordered_map cimport unordered_map
from libcpp.vector cimport vector


cdef extern from "torch/csrc/inductor/aoti_package/model_package_loader.h" \
        namespace "torch::inductor" nogil:
    # All may throw c10::Error. Runs are in csrc/aoti/libtorch, which adds what this class lacks.
    cdef cppclass AOTIModelPackageLoader:
        AOTIModelPackageLoader(
            const string& model_package_path,
            const string& model_name,
            const cbool run_single_threaded,
            const size_t num_runners,
            const signed char device_index) except +
        unordered_map[string, string] get_metadata() except +
        vector[string] get_call_spec() except +
        vector[string] get_constant_fqns() except +

        @staticmethod
        unordered_map[string, string] load_metadata_from_package(
            const string& model_package_path, const string& model_name) except +
