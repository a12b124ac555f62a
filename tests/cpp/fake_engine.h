#pragma once

// An engine in memory. Its model has one output for each input: a copy of the input and, if the
// elements are float32, the weight added to them.

#include <aoti/engine/engine.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace fake {

const AotiEngine& engine();  // knows the CPU only
// Knows devices, too: "fake:0" and "fake:1", whose memory the CPU can read in truth.
const AotiEngine& engine_with_devices();

constexpr DLDevice kDevice{kDLExtDev, 0};
constexpr DLDevice kOtherDevice{kDLExtDev, 1};

// What the engine has made, and what is left of it.
struct Counts {
  std::atomic<int> containers{0};
  std::atomic<int> tensors{0};
  std::atomic<int> bindings{0};
  std::atomic<int> runs{0};
  std::atomic<int> collisions{0};  // runs on a runner that another thread was using
  std::atomic<int> pauses{0};
};
extern Counts counts;

struct Settings {
  bool take_owners = false;  // of inputs; outputs that lie in them keep them
  bool lend_inputs = false;  // outputs lie in the inputs
  bool reversed = false;     // the last input is the first output
  bool pause_fails = false;
  std::size_t reserved = SIZE_MAX;  // asks for room for as many outputs as this
  std::function<void(std::size_t runner)> during_run;
};
extern Settings settings;

// What was asked of devices and of the calling thread's OpenMP team, such as "enter 0 7".
extern std::vector<std::string> log;

// Options of the last `open`, and of the last `set_constants`.
struct Opened {
  std::string path;
  std::string model_name;
  std::size_t num_runners = 0;
  bool container_per_runner = false;
  bool folded = false;
  float last_closed_weight = 0;
};
extern Opened opened;

// Lets the next call of a function fail. "outputs" is a run that fails with its first output.
void fail_next(const char* function, int32_t code, const char* message, const char* detail);

// An engine as it is at first, for one test, which must leave nothing behind.
class Fresh {
 public:
  Fresh();
  ~Fresh();
  Fresh(const Fresh&) = delete;
  Fresh& operator=(const Fresh&) = delete;
};

// The number of threads of the calling thread's parallel regions.
extern thread_local int32_t threads;

}  // namespace fake
