// Activation codes in registers of 256 bits.
#pragma once

#include "lanes_avx2.h"

namespace {

// The instruction multiplies unsigned by signed: codes are kept with 128 added.
using Code = uint8_t;

inline void store_codes(Code* to, Lanes a) {
  const __m256i words = _mm256_permute4x64_epi64(
      _mm256_packs_epi32(_mm256_cvtps_epi32(a.low), _mm256_cvtps_epi32(a.high)), 0xD8);
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm_xor_si128(bytes, _mm_set1_epi8(-128)));
}

}  // namespace
