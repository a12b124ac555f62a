#include <aoti/core/dtype.h>

#include "expect.h"

namespace aoti {

TEST(a_dtype_is_a_number_and_back) {
  const DLDataType type{kDLBfloat, 16, 1};
  const DLDataType back = dl_type_of(dtype_of(type));
  EXPECT_EQ(back.code, type.code);
  EXPECT_EQ(back.bits, type.bits);
  EXPECT_EQ(back.lanes, type.lanes);
  EXPECT(dtype_of(type) != kNoDType);
  EXPECT_EQ(itemsize_of(type), 2);
  EXPECT_EQ(itemsize_of(DLDataType{kDLComplex, 128, 1}), 16);
  EXPECT_EQ(itemsize_of(DLDataType{kDLFloat, 32, 4}), 16);
  EXPECT_EQ(itemsize_of(DLDataType{kDLFloat4_e2m1fn, 4, 2}), 1);
}

}  // namespace aoti
