// AVX-512 (F, BW, DQ, VL) without products of 8-bit codes.
#include "lanes_avx512.h"
#include "kernels_tables.h"

namespace {

// As under AVX2: 16-bit codes, whose products of two are added in 32 bits by one instruction.
using Code = int16_t;

inline void store_codes(Code* to, Lanes a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(a.v)));
}

void multiply_i8(const onesearch::Packed& w, const onesearch::Codes& rows, int count, float* out, int out_stride);

}  // namespace

#include "kernels.inl"

namespace {

inline __m512i widened(const int8_t* codes) {
  return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)));
}

// 8 columns × 2 partial sums → the sums of the columns.
inline __m256i columns(__m512i pairs) {
  return _mm512_cvtepi64_epi32(_mm512_add_epi32(pairs, _mm512_srli_epi64(pairs, 32)));
}

template <int kRows>
inline void block_i8(const Packed& w, const int8_t* codes, int column, const Codes& rows, int r, float* out,
                     int out_stride) {
  __m512i low[kRows], high[kRows];
  const Code* from = static_cast<const Code*>(rows.codes) + static_cast<size_t>(r) * w.in;
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) low[i] = high[i] = _mm512_setzero_si512();
  for (int k = 0; k < w.in; k += 4, codes += 4 * kLanes) {
    const __m512i left = widened(codes), right = widened(codes + 32);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      long long four;
      __builtin_memcpy(&four, from + static_cast<size_t>(i) * w.in + k, 8);
      const __m512i row = _mm512_set1_epi64(four);
      low[i] = _mm512_add_epi32(low[i], _mm512_madd_epi16(row, left));
      high[i] = _mm512_add_epi32(high[i], _mm512_madd_epi16(row, right));
    }
  }
  const __m512i sums = _mm512_loadu_si512(w.sums + column);
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
    const __m512i total = _mm512_inserti64x4(_mm512_castsi256_si512(columns(low[i])), columns(high[i]), 1);
    const __m512i exact =
        _mm512_sub_epi32(total, _mm512_mullo_epi32(_mm512_set1_epi32(rows.zero[r + i]), sums));
    store(out + static_cast<size_t>(r + i) * out_stride + column,
          output({_mm512_cvtepi32_ps(exact)}, rows.scale[r + i], w, column));
  }
}

void multiply_i8(const Packed& w, const Codes& rows, int count, float* out, int out_stride) {
  for (int column = 0; column < w.out; column += kLanes) {
    const int8_t* codes = w.codes + static_cast<size_t>(column) * w.in;
    int r = 0;
    for (; count - r >= 8; r += 8) block_i8<8>(w, codes, column, rows, r, out, out_stride);
    for (; count - r >= 4; r += 4) block_i8<4>(w, codes, column, rows, r, out, out_stride);
    for (; count - r >= 1; r += 1) block_i8<1>(w, codes, column, rows, r, out, out_stride);
  }
}

}  // namespace

namespace onesearch {
extern const Kernels kAvx512;
constexpr Kernels kAvx512 = table("avx512");
}
