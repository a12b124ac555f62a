#include <aoti/libtorch/errors.h>
#include <aoti/libtorch/threads.h>

#include <ATen/Parallel.h>

#include <stdexcept>

// Of the OpenMP that libtorch was linked to, which packages use as well. Weak, so that nothing but
// libtorch is linked, and because older ones cannot pause.
extern "C" {
__attribute__((weak)) void omp_set_num_threads(int);
__attribute__((weak)) int omp_pause_resource_all(int);
}

namespace aoti::libtorch {

// Not omp_get_max_threads: libtorch sets a thread's number when it first needs it, and would do so
// in the middle of the run.
int32_t get_num_threads() noexcept {
  int32_t count = 1;
  static_cast<void>(guarded([&] { count = at::get_num_threads(); }));
  return count;
}

// OpenMP keeps this number for each thread. at::set_num_threads would change it for the threads to
// come as well, and MKL's number for all threads.
int32_t set_num_threads(int32_t count) noexcept {
  return guarded([&] {
    if (omp_set_num_threads == nullptr) {
      throw std::runtime_error(
          "this libtorch does not use OpenMP: intra_op_threads cannot be kept");
    }
    omp_set_num_threads(count);
  });
}

int32_t pause_threads() noexcept {
  constexpr int kSoft = 1;  // omp_pause_soft: settings are kept
  return omp_pause_resource_all != nullptr && omp_pause_resource_all(kSoft) == 0 ? 1 : 0;
}

}  // namespace aoti::libtorch
