// Sixteen floats in two registers of AVX2.
#pragma once

#include <immintrin.h>

#include "half.h"
#include "kernels.h"

namespace {

struct Lanes {
  __m256 low, high;
};

inline Lanes zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline Lanes every(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Lanes load(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
inline void store(float* to, Lanes a) {
  _mm256_storeu_ps(to, a.low);
  _mm256_storeu_ps(to + 8, a.high);
}
// Eight from one place and eight from another.
inline Lanes load_halves(const uint16_t* low, const uint16_t* high) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(low))),
          _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(high)))};
}
inline Lanes load_half(const uint16_t* from) { return load_halves(from, from + 8); }
inline __m256 as_half(__m256 a) {
  return _mm256_cvtph_ps(_mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
// The nearest that halves hold.
inline Lanes as_half(Lanes a) { return {as_half(a.low), as_half(a.high)}; }
inline Lanes add(Lanes a, Lanes b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
inline Lanes sub(Lanes a, Lanes b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
inline Lanes mul(Lanes a, Lanes b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
inline Lanes divide(Lanes a, Lanes b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
inline Lanes maximum(Lanes a, Lanes b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
inline Lanes minimum(Lanes a, Lanes b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
inline Lanes fma(Lanes a, Lanes b, Lanes c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
inline Lanes nearest(Lanes a) {
  constexpr int kind = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.low, kind), _mm256_round_ps(a.high, kind)};
}
inline __m256 power_of_two(__m256 n) {
  const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}
inline Lanes times_power(Lanes a, Lanes n) {
  return {_mm256_mul_ps(a.low, power_of_two(n.low)), _mm256_mul_ps(a.high, power_of_two(n.high))};
}

template <class Pick>
inline float tree(Lanes a, Pick pick) {
  const __m256 eight = pick(a.low, a.high);
  const __m256 four = pick(eight, _mm256_castps128_ps256(_mm256_extractf128_ps(eight, 1)));
  const __m256 two = pick(four, _mm256_shuffle_ps(four, four, _MM_SHUFFLE(3, 2, 3, 2)));
  const __m256 one = pick(two, _mm256_shuffle_ps(two, two, _MM_SHUFFLE(1, 1, 1, 1)));
  return _mm256_cvtss_f32(one);
}
inline float sum(Lanes a) {
  return tree(a, [](__m256 x, __m256 y) { return _mm256_add_ps(x, y); });
}
inline float highest(Lanes a) {
  return tree(a, [](__m256 x, __m256 y) { return _mm256_max_ps(x, y); });
}
inline float lowest(Lanes a) {
  return tree(a, [](__m256 x, __m256 y) { return _mm256_min_ps(x, y); });
}

}  // namespace
