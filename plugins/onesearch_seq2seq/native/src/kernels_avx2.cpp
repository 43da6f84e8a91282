// AVX2 with FMA and F16C.
#include "codes_avx2.h"
#include "kernels_tables.h"

namespace {

void multiply_i8(const onesearch::Packed& w, const onesearch::Codes& rows, int count, float* out, int out_stride);

}  // namespace

#include "kernels.inl"

namespace {

alignas(32) const int16_t kOnes[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

// Adds the products of one row's four codes with 16 columns. The sums of two products fit 16 bits, since the
// weights are packed so. In assembler, since a compiler that reorders this across rows runs out of registers (12
// totals, 2 columns, and these 2 are all 16) and spills in the innermost loop: half as fast.
inline void step(const Code* row, __m256i left, __m256i right, __m256i& low, __m256i& high) {
  __m256i four, product;
  asm("vpbroadcastd %4, %2\n\t"
      "vpmaddubsw %5, %2, %3\n\t"
      "vpmaddubsw %6, %2, %2\n\t"
      "vpmaddwd %7, %3, %3\n\t"
      "vpmaddwd %7, %2, %2\n\t"
      "vpaddd %3, %0, %0\n\t"
      "vpaddd %2, %1, %1"
      : "+x"(low), "+x"(high), "=&x"(four), "=&x"(product)
      : "m"(*reinterpret_cast<const int32_t*>(row)), "x"(left), "x"(right),
        "m"(*reinterpret_cast<const __m256i*>(kOnes)));
}

}  // namespace

#include "product_avx2.inl"

namespace onesearch {
extern const Kernels kAvx2;
constexpr Kernels kAvx2 = table("avx2");
}
