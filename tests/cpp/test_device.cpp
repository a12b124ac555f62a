#include <aoti/core/device.h>

#include "expect.h"

namespace aoti {

TEST(devices_differ_by_type_and_number) {
  EXPECT(is_cpu(kCpu));
  EXPECT(!is_cpu({kDLCUDA, 0}));
  EXPECT(same({kDLCUDA, 1}, {kDLCUDA, 1}));
  EXPECT(!same({kDLCUDA, 0}, {kDLCUDA, 1}));
  EXPECT(!same({kDLCUDA, 0}, {kDLROCM, 0}));
}

TEST(pinned_memory_is_memory_of_the_host) {
  EXPECT(is_host(kDLCPU));
  EXPECT(is_host(kDLCUDAHost));
  EXPECT(is_host(kDLROCMHost));
  EXPECT(!is_host(kDLCUDA));
  EXPECT(!is_host(kDLCUDAManaged));
}

}  // namespace aoti
