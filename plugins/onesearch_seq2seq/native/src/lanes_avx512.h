// Sixteen floats in one register of AVX-512.
#pragma once

#include <immintrin.h>

#include "half.h"
#include "kernels.h"

namespace {

struct Lanes {
  __m512 v;
};

inline Lanes zero() { return {_mm512_setzero_ps()}; }
inline Lanes every(float x) { return {_mm512_set1_ps(x)}; }
inline Lanes load(const float* from) { return {_mm512_loadu_ps(from)}; }
inline void store(float* to, Lanes a) { _mm512_storeu_ps(to, a.v); }
inline Lanes load_half(const uint16_t* from) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)))};
}
// Eight from one place and eight from another.
inline Lanes load_halves(const uint16_t* low, const uint16_t* high) {
  const __m256i first = _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(low)));
  const __m128i second = _mm_loadu_si128(reinterpret_cast<const __m128i*>(high));
  return {_mm512_cvtph_ps(_mm256_inserti128_si256(first, second, 1))};
}
// The nearest that halves hold.
inline Lanes as_half(Lanes a) {
  return {_mm512_cvtph_ps(_mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC))};
}
inline Lanes add(Lanes a, Lanes b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Lanes sub(Lanes a, Lanes b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Lanes mul(Lanes a, Lanes b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Lanes divide(Lanes a, Lanes b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Lanes maximum(Lanes a, Lanes b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Lanes minimum(Lanes a, Lanes b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Lanes fma(Lanes a, Lanes b, Lanes c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Lanes nearest(Lanes a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline Lanes times_power(Lanes a, Lanes n) {
  const __m512i biased = _mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127));
  return {_mm512_mul_ps(a.v, _mm512_castsi512_ps(_mm512_slli_epi32(biased, 23)))};
}

template <class Pick>
inline float tree(Lanes a, Pick pick) {
  const __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a.v), 1));
  const __m256 eight = pick(_mm512_castps512_ps256(a.v), high);
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
