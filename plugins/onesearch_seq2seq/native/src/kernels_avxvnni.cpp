// AVX2 with products of 8-bit codes summed in 32 bits (AVX-VNNI).
#include "codes_avx2.h"
#include "kernels_tables.h"

namespace {

void multiply_i8(const onesearch::Packed& w, const onesearch::Codes& rows, int count, float* out, int out_stride);

}  // namespace

#include "kernels.inl"
#include "product_avx2.inl"

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

// kRows rows × 16 columns.
template <int kRows>
inline void block_i8(const Packed& w, int column, const Codes& rows, int r, float* out, int out_stride) {
  __m256i low[kRows], high[kRows];
  const Code* from = static_cast<const Code*>(rows.codes) + static_cast<size_t>(r) * w.in;
  const int8_t* codes = w.codes + static_cast<size_t>(column) * w.in;
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) low[i] = high[i] = _mm256_setzero_si256();
  for (int k = 0; k < w.in; k += 4, codes += 4 * kLanes) {
    const __m256i left = codes_at(codes), right = codes_at(codes + 32);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) step(from + static_cast<size_t>(i) * w.in + k, left, right, low[i], high[i]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) finish(low[i], high[i], w, column, rows, r + i, out, out_stride);
}

void multiply_i8(const Packed& w, const Codes& rows, int count, float* out, int out_stride) {
  for (int column = 0; column < w.out; column += kLanes) {
    int r = 0;
    for (; count - r >= 6; r += 6) block_i8<6>(w, column, rows, r, out, out_stride);
    switch (count - r) {
      case 5: block_i8<5>(w, column, rows, r, out, out_stride); break;
      case 4: block_i8<4>(w, column, rows, r, out, out_stride); break;
      case 3: block_i8<3>(w, column, rows, r, out, out_stride); break;
      case 2: block_i8<2>(w, column, rows, r, out, out_stride); break;
      case 1: block_i8<1>(w, column, rows, r, out, out_stride); break;
      default: break;
    }
  }
}

}  // namespace

namespace onesearch {
extern const Kernels kAvxVnni;
constexpr Kernels kAvxVnni = table("avxvnni");
}
