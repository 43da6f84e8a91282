// The kernels in plain C++: for machines without the other sets, and the yardstick of their tests.
#include "lanes_plain.h"
#include "kernels_tables.h"

namespace {

void multiply_i8(const onesearch::Packed& w, const onesearch::Codes& rows, int count, float* out, int out_stride);

}  // namespace

#include "kernels.inl"

namespace {

void multiply_i8(const Packed& w, const Codes& rows, int count, float* out, int out_stride) {
  for (int block = 0; block < w.out / kLanes; ++block) {
    const int8_t* codes = w.codes + static_cast<size_t>(block) * w.in * kLanes;
    for (int r = 0; r < count; ++r) {
      const Code* row = static_cast<const Code*>(rows.codes) + static_cast<size_t>(r) * w.in;
      int32_t total[kLanes] = {};
      for (int k = 0; k < w.in; ++k)
        for (int c = 0; c < kLanes; ++c) total[c] += row[k] * codes[(k / 4 * kLanes + c) * 4 + k % 4];
      float exact[kLanes];
      for (int c = 0; c < kLanes; ++c)
        exact[c] = static_cast<float>(total[c] - rows.zero[r] * w.sums[block * kLanes + c]);
      store(out + static_cast<size_t>(r) * out_stride + block * kLanes,
            output(load(exact), rows.scale[r], w, block * kLanes));
    }
  }
}

}  // namespace

namespace onesearch {
extern const Kernels kPlain;
constexpr Kernels kPlain = table("plain");
}
