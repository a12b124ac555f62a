#include <aoti/libtorch/errors.h>

#include <c10/util/Exception.h>

#include <exception>
#include <new>
#include <string>

namespace aoti::libtorch {

namespace {

struct Texts {
  std::string message;
  std::string detail;
};

Texts& texts() noexcept {
  static thread_local Texts mine;
  return mine;
}

int32_t keep(AotiCode code, const char* message, const char* detail) noexcept {
  Texts& kept = texts();
  try {
    kept.message = message;
    kept.detail = detail;
    return code;
  } catch (...) {  // there is no memory for the texts
    kept.message.clear();
    kept.detail.clear();
    return AOTI_OUT_OF_MEMORY;
  }
}

}  // namespace

int32_t keep_exception() noexcept {
  try {
    throw;
  } catch (const c10::Error& error) {  // derived from std::exception, so it comes first
    return keep(AOTI_FAILED, error.what_without_backtrace(), error.what());
  } catch (const std::bad_alloc& error) {
    return keep(AOTI_OUT_OF_MEMORY, error.what(), "");
  } catch (const std::exception& error) {
    return keep(AOTI_FAILED, error.what(), "");
  } catch (...) {
    return keep(AOTI_FAILED, "an exception that is not a std::exception", "");
  }
}

void last_error(const char** message, const char** detail) noexcept {
  const Texts& kept = texts();
  *message = kept.message.c_str();
  *detail = kept.detail.c_str();
}

}  // namespace aoti::libtorch
