#pragma once

// The compiled code of a package in libtorch's containers, with one version of its weights. New
// weights go into new containers, which replace the others between two runs; the code is mapped
// once, so that takes about a millisecond. libtorch's own two buffers do not serve for that:
// folding the second one changes constants that were just set (model_container.h,
// update_constant_buffer), a failure in it leaves a runner with the wrong ones, and neither can be
// returned to.
//
// These are functions of AotiEngine: see engine.h.

#include <aoti/engine/engine.h>

#include <cstddef>
#include <cstdint>

namespace aoti::libtorch {

// Not thread-safe: libtorch parses metadata into a function-local static, and eight threads that do
// it at once crash (pytorch PR 194128). The core holds a lock of the whole process around it.
int32_t open(const AotiOpenOptions* options, AotiContainer** container) noexcept;

void close(AotiContainer* container) noexcept;

int32_t run(
    AotiContainer* container,
    std::size_t runner,
    AotiInput* inputs,
    std::size_t count,
    AotiReserve reserve,
    void* sink) noexcept;

int32_t bind(AotiInput* inputs, std::size_t count, AotiBinding** binding) noexcept;
int32_t run_bound(
    AotiContainer* container,
    std::size_t runner,
    const AotiBinding* binding,
    AotiReserve reserve,
    void* sink) noexcept;
void unbind(AotiBinding* binding) noexcept;

int32_t visit_call_spec(AotiContainer* container, AotiVisitText visit, void* visitor) noexcept;
int32_t visit_fqns(AotiContainer* container, AotiVisitText visit, void* visitor) noexcept;
int32_t visit_constants(AotiContainer* container, AotiVisitConstant visit, void* visitor) noexcept;
int32_t visit_weights(AotiContainer* container, AotiVisitWeight visit, void* visitor) noexcept;

// After a failure the container can only be closed.
int32_t set_constants(
    AotiContainer* container,
    const char* const* names,
    const DLTensor* tensors,
    std::size_t count,
    int32_t fold) noexcept;

}  // namespace aoti::libtorch
