// Runs the tests of one file: `core_tests test_tensor.cpp`.

#include "expect.h"

#include <cstring>

namespace {

const char* base_name(const char* path) {
  const char* slash = std::strrchr(path, '/');
  return slash == nullptr ? path : slash + 1;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::fprintf(stderr, "usage: %s FILE\n", arguments[0]);
    return 2;
  }
  int ran = 0;
  for (const expect::Test* test = expect::first; test != nullptr; test = test->next) {
    if (std::strcmp(base_name(test->file), arguments[1]) != 0) {
      continue;
    }
    std::fprintf(stderr, "%s\n", test->name);  // before it runs: it may never end
    try {
      test->body();
    } catch (const expect::Stop&) {
    }
    ++ran;
  }
  if (ran == 0) {
    std::fprintf(stderr, "%s has no tests\n", arguments[1]);
    return 2;
  }
  return expect::failures == 0 ? 0 : 1;
}
