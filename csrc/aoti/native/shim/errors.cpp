#include <aoti/native/shim/errors.h>

#include <exception>
#include <new>

namespace aoti::native {

namespace {

std::string& message_of_thread() noexcept {
  static thread_local std::string mine;
  return mine;
}

std::string& operator_failure_of_thread() noexcept {
  static thread_local std::string mine;
  return mine;
}

int32_t keep(AotiCode code, const char* text) noexcept {
  try {
    message_of_thread() = text;
    return code;
  } catch (...) {  // there is no memory for the text
    message_of_thread().clear();
    return AOTI_OUT_OF_MEMORY;
  }
}

// Calls `use` with the text of the exception that is being handled.
template <class Use>
auto with_text(Use&& use) noexcept {
  try {
    throw;
  } catch (const std::bad_alloc& error) {
    return use(AOTI_OUT_OF_MEMORY, "there is not enough memory");
  } catch (const std::exception& error) {
    return use(AOTI_FAILED, error.what());
  } catch (...) {
    return use(AOTI_FAILED, "an exception that is not a std::exception");
  }
}

}  // namespace

int32_t keep_exception() noexcept { return with_text(keep); }

void keep_operator_exception(const char* name) noexcept {
  with_text([&](AotiCode, const char* text) {
    std::string& kept = operator_failure_of_thread();
    try {
      kept = name;
      kept += ": ";
      kept += text;
    } catch (...) {
      kept.clear();
    }
  });
}

const std::string& operator_failure() noexcept { return operator_failure_of_thread(); }

void forget_operator_failure() noexcept { operator_failure_of_thread().clear(); }

void last_error(const char** message, const char** detail) noexcept {
  *message = message_of_thread().c_str();
  *detail = "";
}

}  // namespace aoti::native
