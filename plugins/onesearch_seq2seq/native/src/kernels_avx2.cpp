// AVX2 with FMA and F16C.
#include "codes_avx2.h"
#include "kernels_tables.h"

namespace {

void multiply_i8(const onesearch::Packed& w, const onesearch::Codes& rows, int count, float* out, int out_stride);

}  // namespace

#include "kernels.inl"
#include "product_avx2.inl"

namespace {

alignas(32) const int16_t kOnes[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

// Adds the products of one row's eight codes with 16 columns: those of four, two by two, and of the other four, are
// added in 16 bits, which the weights are packed to allow, before the sums are widened. In assembler, since a
// compiler that reorders this across rows runs out of registers (8 totals, 4 of weights, and these 4 are all 16)
// and spills in the innermost loop: half as fast.
inline void step(const Code* row, const __m256i (&w)[4], __m256i& low, __m256i& high) {
  __m256i left, right, next, last;
  asm("vpbroadcastd %[first], %[right]\n\t"
      "vpbroadcastd %[second], %[last]\n\t"
      "vpmaddubsw %[w0], %[right], %[left]\n\t"
      "vpmaddubsw %[w1], %[right], %[right]\n\t"
      "vpmaddubsw %[w2], %[last], %[next]\n\t"
      "vpmaddubsw %[w3], %[last], %[last]\n\t"
      "vpaddw %[next], %[left], %[left]\n\t"
      "vpaddw %[last], %[right], %[right]\n\t"
      "vpmaddwd %[ones], %[left], %[left]\n\t"
      "vpmaddwd %[ones], %[right], %[right]\n\t"
      "vpaddd %[left], %[low], %[low]\n\t"
      "vpaddd %[right], %[high], %[high]"
      : [low] "+x"(low), [high] "+x"(high), [left] "=&x"(left), [right] "=&x"(right), [next] "=&x"(next),
        [last] "=&x"(last)
      : [first] "m"(*reinterpret_cast<const int32_t*>(row)),
        [second] "m"(*reinterpret_cast<const int32_t*>(row + 4)), [w0] "x"(w[0]), [w1] "x"(w[1]), [w2] "x"(w[2]),
        [w3] "x"(w[3]), [ones] "m"(*reinterpret_cast<const __m256i*>(kOnes)));
}

// kRows rows × 16 columns.
template <int kRows>
inline void block_i8(const Packed& w, int column, const Codes& rows, int r, float* out, int out_stride) {
  __m256i low[kRows], high[kRows];
  const Code* from = static_cast<const Code*>(rows.codes) + static_cast<size_t>(r) * w.in;
  const int8_t* codes = w.codes + static_cast<size_t>(column) * w.in;
#pragma GCC unroll 4
  for (int i = 0; i < kRows; ++i) low[i] = high[i] = _mm256_setzero_si256();
  for (int k = 0; k < w.in; k += 8, codes += 8 * kLanes) {
    const __m256i four[4] = {codes_at(codes), codes_at(codes + 32), codes_at(codes + 64), codes_at(codes + 96)};
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) step(from + static_cast<size_t>(i) * w.in + k, four, low[i], high[i]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < kRows; ++i) finish(low[i], high[i], w, column, rows, r + i, out, out_stride);
}

void multiply_i8(const Packed& w, const Codes& rows, int count, float* out, int out_stride) {
  for (int column = 0; column < w.out; column += kLanes) {
    int r = 0;
    for (; count - r >= 4; r += 4) block_i8<4>(w, column, rows, r, out, out_stride);
    switch (count - r) {
      case 3: block_i8<3>(w, column, rows, r, out, out_stride); break;
      case 2: block_i8<2>(w, column, rows, r, out, out_stride); break;
      case 1: block_i8<1>(w, column, rows, r, out, out_stride); break;
      default: break;
    }
  }
}

}  // namespace

namespace onesearch {
extern const Kernels kAvx2;
constexpr Kernels kAvx2 = table("avx2");
}
