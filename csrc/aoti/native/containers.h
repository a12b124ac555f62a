#pragma once

// The compiled code of a package in its own containers, with one version of its weights. These are
// functions of AotiEngine: see engine.h. New weights go into new containers, as in the libtorch
// engine (csrc/aoti/libtorch/containers.h says why).

#include <aoti/engine/engine.h>

#include <cstddef>
#include <cstdint>

namespace aoti::native {

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
void release_tensor(void* handle) noexcept;

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

}  // namespace aoti::native
