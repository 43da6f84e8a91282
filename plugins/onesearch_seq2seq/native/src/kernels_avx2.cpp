// AVX2 with FMA and F16C.
#include "lanes_avx2.h"
#include "kernels_tables.h"

namespace {

// 16-bit codes: products of two are added in 32 bits by one instruction, which cannot overflow.
using Code = int16_t;

inline void store_codes(Code* to, Lanes a) {
  const __m256i both = _mm256_packs_epi32(_mm256_cvtps_epi32(a.low), _mm256_cvtps_epi32(a.high));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permute4x64_epi64(both, 0xD8));
}

void multiply_i8(const onesearch::Packed& w, const onesearch::Codes& rows, int count, float* out, int out_stride);

}  // namespace

#include "kernels.inl"

namespace {

inline __m256i widened(const int8_t* codes) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
}

// Adds the products of one row's four codes. In assembler, since a compiler that reorders them across rows runs
// out of registers (12 totals, 2 columns, and these 2 are all 16) and spills in the innermost loop: half as fast.
inline void step(const Code* row, __m256i left, __m256i right, __m256i& first, __m256i& second) {
  __m256i four, product;
  asm("vpbroadcastq %4, %2\n\t"
      "vpmaddwd %5, %2, %3\n\t"
      "vpaddd %3, %0, %0\n\t"
      "vpmaddwd %6, %2, %2\n\t"
      "vpaddd %2, %1, %1"
      : "+x"(first), "+x"(second), "=&x"(four), "=&x"(product)
      : "m"(*reinterpret_cast<const long long*>(row)), "x"(left), "x"(right));
}

// kRows rows × 8 columns: two registers a row, each of 4 columns × 2 partial sums.
template <int kRows>
inline void tile_i8(const int8_t* codes, int in, const Code* rows, __m256i* totals) {
  __m256i first[kRows], second[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) first[r] = second[r] = _mm256_setzero_si256();
  for (int k = 0; k < in; k += 4, codes += 4 * kLanes) {
    const __m256i left = widened(codes), right = widened(codes + 16);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
      step(rows + static_cast<size_t>(r) * in + k, left, right, first[r], second[r]);
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
    totals[r] = _mm256_permute4x64_epi64(_mm256_hadd_epi32(first[r], second[r]), 0xD8);
}

template <int kRows>
inline void block_i8(const Packed& w, const int8_t* codes, int column, const Codes& rows, int r, float* out,
                     int out_stride) {
  __m256i low[kRows], high[kRows];
  const Code* from = static_cast<const Code*>(rows.codes) + static_cast<size_t>(r) * w.in;
  tile_i8<kRows>(codes, w.in, from, low);
  tile_i8<kRows>(codes + 32, w.in, from, high);
  const __m256i* sums = reinterpret_cast<const __m256i*>(w.sums + column);
  const __m256i low_sums = _mm256_loadu_si256(sums), high_sums = _mm256_loadu_si256(sums + 1);
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
    const __m256i zero_point = _mm256_set1_epi32(rows.zero[r + i]);
    const __m256i a = _mm256_sub_epi32(low[i], _mm256_mullo_epi32(zero_point, low_sums));
    const __m256i b = _mm256_sub_epi32(high[i], _mm256_mullo_epi32(zero_point, high_sums));
    store(out + static_cast<size_t>(r + i) * out_stride + column,
          output({_mm256_cvtepi32_ps(a), _mm256_cvtepi32_ps(b)}, rows.scale[r + i], w, column));
  }
}

void multiply_i8(const Packed& w, const Codes& rows, int count, float* out, int out_stride) {
  for (int column = 0; column < w.out; column += kLanes) {
    const int8_t* codes = w.codes + static_cast<size_t>(column) * w.in;
    int r = 0;
    for (; count - r >= 6; r += 6) block_i8<6>(w, codes, column, rows, r, out, out_stride);
    switch (count - r) {
      case 5: block_i8<5>(w, codes, column, rows, r, out, out_stride); break;
      case 4: block_i8<4>(w, codes, column, rows, r, out, out_stride); break;
      case 3: block_i8<3>(w, codes, column, rows, r, out, out_stride); break;
      case 2: block_i8<2>(w, codes, column, rows, r, out, out_stride); break;
      case 1: block_i8<1>(w, codes, column, rows, r, out, out_stride); break;
      default: break;
    }
  }
}

}  // namespace

namespace onesearch {
extern const Kernels kAvx2;
constexpr Kernels kAvx2 = table("avx2");
}
