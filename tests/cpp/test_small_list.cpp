#include <aoti/core/small_list.h>

#include <cstdint>

#include "expect.h"

using aoti::SmallList;

namespace {

struct Pair {
  int64_t first;
  int64_t second;
};

}  // namespace

TEST(elements_keep_their_values_when_the_list_grows) {
  SmallList<Pair, 2> list;
  for (int64_t i = 0; i < 100; ++i) {
    list.add() = {i, -i};
  }
  EXPECT_EQ(list.size(), std::size_t{100});
  for (int64_t i = 0; i < 100; ++i) {
    EXPECT_EQ(list[static_cast<std::size_t>(i)].second, -i);
  }
  EXPECT_EQ(list.back().first, 99);
}

TEST(an_added_element_is_all_zeros) {
  SmallList<Pair, 2> list;
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(list.add().second, 0);
    list.back() = {7, 7};
  }
  list.clear();
  EXPECT_EQ(list.add().first, 0);
}

TEST(room_is_made_once) {
  SmallList<Pair, 2> list;
  list.add() = {1, 2};
  list.reserve(50);
  const Pair* const data = list.data();
  for (int64_t i = 1; i < 50; ++i) {
    list.add() = {i, i};
  }
  EXPECT_EQ(static_cast<const Pair*>(list.data()), data);
  EXPECT_EQ(list[0].second, 2);
}

TEST(assigned_elements_are_zeros_inside_and_outside_of_the_list) {
  SmallList<Pair, 2> list;
  for (const std::size_t count : {1, 2, 3, 40, 2, 0}) {
    list.assign_zeros(count);
    EXPECT_EQ(list.size(), count);
    for (Pair& pair : list) {
      EXPECT_EQ(pair.first, 0);
      pair = {7, 7};
    }
  }
  list.clear();
  EXPECT_EQ(list.size(), std::size_t{0});
}
