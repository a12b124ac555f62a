#pragma once

// What the parts of the fake engine share.

#include <aoti/core/tensor.h>
#include <aoti/engine/engine.h>

#include <cstdint>
#include <string>

namespace fake {

int32_t fail(int32_t code, const std::string& message, const std::string& detail = "");

// The code of a failure that this function is to have; AOTI_OK otherwise.
int32_t failing(const char* function);

AotiTensor give(aoti::Tensor tensor, bool borrowed = false);

extern const AotiDevices devices;

}  // namespace fake
