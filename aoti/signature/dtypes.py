"""The dtypes that tensors and arrays share: the one table of their names, sizes and codes.

The names are those of torch, numpy and ml_dtypes, which agree. Generated C++ contains them after
``aoti_torch_dtype_`` and ``cached_torch_dtype_``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

# DLDataTypeCode of dlpack.h.
_INT, _UINT, _FLOAT, _BFLOAT, _COMPLEX, _BOOL = 0, 1, 2, 4, 5, 6
_FLOAT8_E4M3FN, _FLOAT8_E4M3FNUZ, _FLOAT8_E5M2, _FLOAT8_E5M2FNUZ, _FLOAT8_E8M0FNU = range(10, 15)


class DType(NamedTuple):
    """One dtype.

    Attributes
    ----------
    dlpack_code : int
        The ``code`` of its DLDataType. The number of lanes is 1.
    bits : int
        The size of an element; a complex element counts both parts.
    safetensors : str or None
        Its code in the header of a ``.safetensors`` file; None if that format lacks it.
    storage : str or None
        The class in ``torch.storage`` that a pickle names for it; None if torch has no such class.
    """

    dlpack_code: int
    bits: int
    safetensors: str | None = None
    storage: str | None = None

    @property
    def itemsize(self) -> int:
        """The size of an element, in bytes."""
        return self.bits // 8


# numpy lacks bfloat16 and float8, which ml_dtypes has, and complex32, which only torch and newer
# versions of ml_dtypes have.
DTYPES: dict[str, DType] = {
    "bool": DType(_BOOL, 8, "BOOL", "BoolStorage"),
    "uint8": DType(_UINT, 8, "U8", "ByteStorage"),
    "uint16": DType(_UINT, 16, "U16"),
    "uint32": DType(_UINT, 32, "U32"),
    "uint64": DType(_UINT, 64, "U64"),
    "int8": DType(_INT, 8, "I8", "CharStorage"),
    "int16": DType(_INT, 16, "I16", "ShortStorage"),
    "int32": DType(_INT, 32, "I32", "IntStorage"),
    "int64": DType(_INT, 64, "I64", "LongStorage"),
    "float16": DType(_FLOAT, 16, "F16", "HalfStorage"),
    "float32": DType(_FLOAT, 32, "F32", "FloatStorage"),
    "float64": DType(_FLOAT, 64, "F64", "DoubleStorage"),
    "complex32": DType(_COMPLEX, 32),
    "complex64": DType(_COMPLEX, 64, "C64", "ComplexFloatStorage"),
    "complex128": DType(_COMPLEX, 128, None, "ComplexDoubleStorage"),
    "bfloat16": DType(_BFLOAT, 16, "BF16", "BFloat16Storage"),
    "float8_e4m3fn": DType(_FLOAT8_E4M3FN, 8, "F8_E4M3"),
    "float8_e4m3fnuz": DType(_FLOAT8_E4M3FNUZ, 8),
    "float8_e5m2": DType(_FLOAT8_E5M2, 8, "F8_E5M2"),
    "float8_e5m2fnuz": DType(_FLOAT8_E5M2FNUZ, 8),
    "float8_e8m0fnu": DType(_FLOAT8_E8M0FNU, 8, "F8_E8M0"),
}


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return numpy's dtype of a name in `DTYPES`; ml_dtypes provides those that numpy lacks.

    Raises
    ------
    ValueError
        ml_dtypes is not installed, or does not have this dtype.
    """
    import numpy as np

    try:
        return np.dtype(name)
    except TypeError:
        try:
            import ml_dtypes
        except ImportError:
            raise ValueError(
                f"{name} needs the package ml_dtypes (pip install ml_dtypes)"
            ) from None
        if not hasattr(ml_dtypes, name):  # complex32, in older versions
            raise ValueError(f"the installed ml_dtypes has no dtype {name}") from None
        dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return dtype
