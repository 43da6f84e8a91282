// Sixteen floats without any instruction set: what all others must equal.
#pragma once

#include <cmath>
#include <cstring>

#include "half.h"
#include "kernels.h"

namespace {

struct Lanes {
  float v[16];
};

inline Lanes zero() { return Lanes{}; }

inline Lanes every(float x) {
  Lanes r;
  for (float& lane : r.v) lane = x;
  return r;
}

inline Lanes load(const float* from) {
  Lanes r;
  std::memcpy(r.v, from, sizeof r.v);
  return r;
}

inline void store(float* to, Lanes a) { std::memcpy(to, a.v, sizeof a.v); }

// Eight from one place and eight from another.
inline Lanes load_halves(const uint16_t* low, const uint16_t* high) {
  Lanes r;
  for (int i = 0; i < 8; ++i) r.v[i] = from_half(low[i]), r.v[i + 8] = from_half(high[i]);
  return r;
}

inline Lanes load_half(const uint16_t* from) { return load_halves(from, from + 8); }

// The nearest that a half holds (of numbers below 65,520).
inline float to_half(float value) {
  if (std::fabs(value) < 6.103515625e-5f)  // multiples of 2^-24
    return std::nearbyint(value * 16777216.0f) * 5.9604644775390625e-8f;
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  bits = (bits + 0xfffu + ((bits >> 13) & 1u)) & ~0x1fffu;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline Lanes as_half(Lanes a) {
  for (float& lane : a.v) lane = to_half(lane);
  return a;
}

#define ONESEARCH_LANEWISE(name, expression)       \
  inline Lanes name(Lanes a, Lanes b) {            \
    Lanes r;                                       \
    for (int i = 0; i < 16; ++i) {                 \
      const float x = a.v[i], y = b.v[i];          \
      r.v[i] = (expression);                       \
    }                                              \
    return r;                                      \
  }
ONESEARCH_LANEWISE(add, x + y)
ONESEARCH_LANEWISE(sub, x - y)
ONESEARCH_LANEWISE(mul, x * y)
ONESEARCH_LANEWISE(divide, x / y)
// As the processors' instructions have it: the second one where they are equal.
ONESEARCH_LANEWISE(maximum, x > y ? x : y)
ONESEARCH_LANEWISE(minimum, x < y ? x : y)
#undef ONESEARCH_LANEWISE

inline Lanes fma(Lanes a, Lanes b, Lanes c) {
  Lanes r;
  for (int i = 0; i < 16; ++i) r.v[i] = std::fmaf(a.v[i], b.v[i], c.v[i]);
  return r;
}

// To the nearest, halves to even.
inline Lanes nearest(Lanes a) {
  Lanes r;
  for (int i = 0; i < 16; ++i) r.v[i] = std::nearbyintf(a.v[i]);
  return r;
}

// a · 2^n for whole n; a and the result are normal.
inline Lanes times_power(Lanes a, Lanes n) {
  Lanes r;
  for (int i = 0; i < 16; ++i) {
    const uint32_t bits = static_cast<uint32_t>(static_cast<int32_t>(n.v[i]) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, 4);
    r.v[i] = a.v[i] * power;
  }
  return r;
}

template <class Pick>
inline float tree(Lanes a, Pick pick) {
  for (int half = 8; half; half /= 2)
    for (int i = 0; i < half; ++i) a.v[i] = pick(a.v[i], a.v[i + half]);
  return a.v[0];
}

inline float sum(Lanes a) {
  return tree(a, [](float x, float y) { return x + y; });
}
inline float highest(Lanes a) {
  return tree(a, [](float x, float y) { return x > y ? x : y; });
}
inline float lowest(Lanes a) {
  return tree(a, [](float x, float y) { return x < y ? x : y; });
}

// Whole numbers in [-128, 127] as activation codes.
using Code = int16_t;
inline void store_codes(Code* to, Lanes a) {
  for (int i = 0; i < 16; ++i) to[i] = static_cast<Code>(a.v[i]);
}

}  // namespace
