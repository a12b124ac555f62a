#pragma once

// The seam between the array core and an engine, which runs the compiled code of a package.
//
// C only, so that one build of the core works with every build of an engine. An engine is one
// static `AotiEngine`. A member marked "optional" may be null. No function throws, and none takes
// the GIL unless its comment says so; all may be called from any thread. A function that returns
// `int32_t` returns an AotiCode; after a failure `last_error` says why.
//
// Tensors cross the seam as DLPack's DLTensor: strides are in elements, always set, and never
// negative; `byte_offset` is 0.

#include <dlpack/dlpack.h>

#include <stddef.h>
#include <stdint.h>

#define AOTI_ENGINE_VERSION 1

#ifdef __cplusplus
extern "C" {
#endif

enum AotiCode { AOTI_OK = 0, AOTI_FAILED = 1, AOTI_OUT_OF_MEMORY = 2 };

// The compiled code of a model with one version of its weights, for a number of runners.
typedef struct AotiContainer AotiContainer;
// Inputs that an engine has prepared for many runs.
typedef struct AotiBinding AotiBinding;

typedef struct AotiInput {
  DLTensor view;
  void* owner;  // keeps the memory alive; null: the caller does, until the run ends
  void (*release)(void* owner);  // the engine sets `owner` to null when it takes over this duty;
} AotiInput;                     // `release` may take the GIL

typedef struct AotiTensor {
  void* handle;      // owned by whoever holds the struct, who calls `release_tensor` once
  DLTensor view;     // shape and strides live as long as the handle
  int32_t borrowed;  // the memory belongs to an input of the run, not to the handle
} AotiTensor;

// Returns zeroed room for the outputs of a run; null if there is no memory. After a failure of the
// run no slot has a handle.
typedef AotiTensor* (*AotiReserve)(void* sink, size_t count);
typedef void (*AotiVisitText)(void* visitor, const char* text);
typedef void (*AotiVisitConstant)(
    void* visitor, const char* name, const char* fqn, DLDataType dtype);
// `tensor` is null for a constant that is packed for an operator; the visitor takes its handle.
typedef void (*AotiVisitWeight)(void* visitor, const char* fqn, const AotiTensor* tensor);

typedef struct AotiOpenOptions {
  const char* path;  // a directory or a zip file that aoti.cache wrote
  const char* model_name;
  size_t num_runners;
  int32_t container_per_runner;  // each runner has its own copy of the weights inside the code
  DLDevice device;
} AotiOpenOptions;

// Devices other than the CPU and the order of work on them. Streams have a number that the engine
// chose, and a handle that other libraries know.
typedef struct AotiDevices {
  int32_t (*find)(const char* name, DLDevice* device);  // without a number: the current device
  int32_t (*usable)(DLDevice device);                   // returns 1 or 0
  int32_t (*check)(const char* name, int64_t count, double* sum);  // adds up `count` ones on it
  int32_t (*current_stream)(DLDevice device, int64_t* number, uintptr_t* handle);
  int32_t (*find_stream)(DLDevice device, uintptr_t handle, int64_t* number);
  int32_t (*enter_stream)(DLDevice device, int64_t number, void** scope);
  void (*leave_stream)(void* scope);
  int32_t (*wait_stream)(DLDevice device, int64_t stream, int64_t ahead);  // returns at once
  int32_t (*synchronize)(DLDevice device);                    // waits for all of its streams
  int32_t (*record_stream)(void* handle, int64_t stream);     // the memory is in use there, too
  int32_t (*empty)(const DLTensor* like, AotiTensor* made);   // with these strides
  int32_t (*copy)(const DLTensor* to, const DLTensor* from);  // on the current stream
  // A copy on another device with the same strides. Without `wait`, a copy from the host goes
  // through pinned memory and the call returns before the device has it.
  int32_t (*copy_to)(const DLTensor* from, DLDevice device, int32_t wait, AotiTensor* made);
  int32_t (*memory)(DLDevice device, int64_t* now, int64_t* peak);  // allocated bytes
  int32_t (*reset_peak)(DLDevice device);
} AotiDevices;

typedef struct AotiEngine {
  uint32_t struct_size;
  uint32_t version;     // AOTI_ENGINE_VERSION
  const char* name;     // "libtorch"
  const char* details;  // what it was built from, as JSON

  void (*last_error)(const char** message, const char** detail);  // of this thread

  int32_t (*open)(const AotiOpenOptions* options, AotiContainer** container);
  void (*close)(AotiContainer* container);  // waits for the device

  // Runs on one runner, which no other thread uses meanwhile. Outputs that lie in a weight are
  // copied.
  int32_t (*run)(
      AotiContainer* container,
      size_t runner,
      AotiInput* inputs,
      size_t count,
      AotiReserve reserve,
      void* sink);
  int32_t (*bind)(AotiInput* inputs, size_t count, AotiBinding** binding);
  int32_t (*run_bound)(
      AotiContainer* container,
      size_t runner,
      const AotiBinding* binding,
      AotiReserve reserve,
      void* sink);
  void (*unbind)(AotiBinding* binding);
  void (*release_tensor)(void* handle);

  int32_t (*visit_call_spec)(AotiContainer* container, AotiVisitText visit, void* visitor);
  int32_t (*visit_fqns)(AotiContainer* container, AotiVisitText visit, void* visitor);
  int32_t (*visit_constants)(AotiContainer* container, AotiVisitConstant visit, void* visitor);
  int32_t (*visit_weights)(AotiContainer* container, AotiVisitWeight visit, void* visitor);
  // Replaces constants by their names in the code. They are not copied: the caller keeps them until
  // `close`. With `fold`, what is computed from weights once is computed now. Nothing may run;
  // after a failure the container can only be closed.
  int32_t (*set_constants)(
      AotiContainer* container,
      const char* const* names,
      const DLTensor* tensors,
      size_t count,
      int32_t fold);

  int32_t (*get_num_threads)(void);           // of the calling thread's parallel regions
  int32_t (*set_num_threads)(int32_t count);  // for the calling thread alone
  int32_t (*pause_threads)(void);  // ends the calling thread's OpenMP team; 1: it has none now

  // Optional; returns 1 or 0, and -1 if it fails.
  int32_t (*has_operator)(const char* name, const char* overload);
  // Optional: makes a torch.Tensor of a handle, which it takes. Wants the GIL. Returns a new
  // reference; null with a Python exception set, or with `last_error`. `can_make_torch_tensors`
  // says whether this process has imported a torch that fits.
  int32_t (*can_make_torch_tensors)(void);
  void* (*make_torch_tensor)(void* handle);
  const AotiDevices* devices;  // optional: null for an engine that knows only the CPU
} AotiEngine;

#ifdef __cplusplus
}
#endif
