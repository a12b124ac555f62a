#pragma once

// The functions of vector mathematics that compiled packages call: those of SLEEF that PyTorch's
// headers for AVX2 and AVX-512 name. Each exists for the four types of vector, f8, f16, d4 and d8;
// a suffix is SLEEF's: the bound of the error, in tenths of the last place (u10: 1.0). In addition,
// there is sincos (u10), whose result is a struct of two vectors.

#define AOTI_MATH_UNARY(FUNCTION) \
  FUNCTION(acos, _u10)            \
  FUNCTION(acosh, _u10)           \
  FUNCTION(asin, _u10)            \
  FUNCTION(asinh, _u10)           \
  FUNCTION(atan, _u10)            \
  FUNCTION(atanh, _u10)           \
  FUNCTION(cos, _u10)             \
  FUNCTION(cosh, _u10)            \
  FUNCTION(erf, _u10)             \
  FUNCTION(erfc, _u15)            \
  FUNCTION(exp, _u10)             \
  FUNCTION(exp2, _u10)            \
  FUNCTION(expm1, _u10)           \
  FUNCTION(lgamma, _u10)          \
  FUNCTION(log, _u10)             \
  FUNCTION(log10, _u10)           \
  FUNCTION(log1p, _u10)           \
  FUNCTION(log2, _u10)            \
  FUNCTION(sin, _u10)             \
  FUNCTION(sinh, _u10)            \
  FUNCTION(tan, _u10)             \
  FUNCTION(tanh, _u10)

// Of float alone.
#define AOTI_MATH_UNARY_FLOAT(FUNCTION) \
  FUNCTION(cos, _u35)                   \
  FUNCTION(sin, _u35)

#define AOTI_MATH_BINARY(FUNCTION) \
  FUNCTION(atan2, _u10)            \
  FUNCTION(copysign, )             \
  FUNCTION(fmod, )                 \
  FUNCTION(hypot, _u05)            \
  FUNCTION(nextafter, )            \
  FUNCTION(pow, _u10)
