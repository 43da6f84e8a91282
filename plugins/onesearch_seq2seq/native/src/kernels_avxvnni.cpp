// AVX2 with products of 8-bit codes summed in 32 bits (AVX-VNNI).
#include "codes_avx2.h"
#include "kernels_tables.h"

namespace {

void multiply_i8(const onesearch::Packed& w, const onesearch::Codes& rows, int count, float* out, int out_stride);

}  // namespace

#include "kernels.inl"

namespace {

// Adds the products of one row's four codes with 16 columns. In assembler, since compilers copy the totals to and
// fro around the intrinsic.
inline void step(const Code* row, __m256i left, __m256i right, __m256i& low, __m256i& high) {
  __m256i four;
  asm("vpbroadcastd %3, %2\n\t"
      "%{vex%} vpdpbusd %4, %2, %0\n\t"
      "%{vex%} vpdpbusd %5, %2, %1"
      : "+x"(low), "+x"(high), "=&x"(four)
      : "m"(*reinterpret_cast<const int32_t*>(row)), "x"(left), "x"(right));
}

}  // namespace

#include "product_avx2.inl"

namespace onesearch {
extern const Kernels kAvxVnni;
constexpr Kernels kAvxVnni = table("avxvnni");
}
