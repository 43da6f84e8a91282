// AVX2 with FMA and F16C.
#include "lanes_avx2.h"
#include "kernels_tables.h"

namespace {

// The instruction multiplies unsigned by signed: codes are kept with 128 added.
using Code = uint8_t;

inline void store_codes(Code* to, Lanes a) {
  const __m256i words = _mm256_permute4x64_epi64(
      _mm256_packs_epi32(_mm256_cvtps_epi32(a.low), _mm256_cvtps_epi32(a.high)), 0xD8);
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm_xor_si128(bytes, _mm_set1_epi8(-128)));
}

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

// kRows rows × 16 columns.
template <int kRows>
inline void block_i8(const Packed& w, const int8_t* codes, int column, const Codes& rows, int r, float* out,
                     int out_stride) {
  __m256i low[kRows], high[kRows];
  const Code* from = static_cast<const Code*>(rows.codes) + static_cast<size_t>(r) * w.in;
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) low[i] = high[i] = _mm256_setzero_si256();
  for (int k = 0; k < w.in; k += 4, codes += 4 * kLanes) {
    const __m256i left = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
    const __m256i right = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + 32));
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) step(from + static_cast<size_t>(i) * w.in + k, left, right, low[i], high[i]);
  }
  const __m256i* sums = reinterpret_cast<const __m256i*>(w.sums + column);
  const __m256i low_sums = _mm256_loadu_si256(sums), high_sums = _mm256_loadu_si256(sums + 1);
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
    const __m256i zero_point = _mm256_set1_epi32(rows.zero[r + i] + 128);
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
