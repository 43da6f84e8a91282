// AVX2 with products of 8-bit codes summed in 32 bits (AVX-VNNI): 256-bit registers.
#include "lanes_avx2.h"
#include "kernels_tables.h"

namespace {

// The instruction multiplies unsigned by signed: codes are kept with 128 added.
using Code = uint8_t;

inline void store_codes(Code* to, Lanes a) {
  const __m256 up = _mm256_set1_ps(128.0f);
  const __m256i low = _mm256_cvtps_epi32(_mm256_add_ps(a.low, up));
  const __m256i high = _mm256_cvtps_epi32(_mm256_add_ps(a.high, up));
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xD8);
  const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes);
}

void multiply_i8(const onesearch::Packed& w, const onesearch::Codes& rows, int count, float* out, int out_stride);

}  // namespace

#include "kernels.inl"

namespace {

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
    for (int i = 0; i < kRows; ++i) {
      int four;
      __builtin_memcpy(&four, from + static_cast<size_t>(i) * w.in + k, 4);
      const __m256i row = _mm256_set1_epi32(four);
      low[i] = _mm256_dpbusd_avx_epi32(low[i], row, left);
      high[i] = _mm256_dpbusd_avx_epi32(high[i], row, right);
    }
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
extern const Kernels kAvxVnni;
constexpr Kernels kAvxVnni = table("avxvnni");
}
