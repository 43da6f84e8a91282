// Activation codes in registers of 512 bits.
#pragma once

#include "lanes_avx512.h"

namespace {

// The instruction multiplies unsigned by signed: codes are kept with 128 added.
using Code = uint8_t;

inline void store_codes(Code* to, Lanes a) {
  const __m512i up = _mm512_cvtps_epi32(_mm512_add_ps(a.v, _mm512_set1_ps(128.0f)));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(up));
}

}  // namespace
