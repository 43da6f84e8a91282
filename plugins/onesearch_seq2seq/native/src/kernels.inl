// The kernels, written on sixteen lanes. Included by one file an instruction set, after its lanes, its 8-bit
// product `multiply_i8` and its codes (`Code`, `store_codes`).
//
// Everything is in an unnamed namespace: these files are compiled for different machines, and no function of
// one may stand in for that of another when they are linked.

namespace {

using onesearch::Codes;
using onesearch::Kernels;
using onesearch::kEntries;
using onesearch::kLanes;
using onesearch::Packed;

// e^x, relative error 1e-7, for x in [-87, 88]; less is taken for -87. (Coefficients of Cephes.)
inline Lanes exponential(Lanes x) {
  x = maximum(x, every(-87.0f));
  const Lanes n = nearest(mul(x, every(1.44269504088896341f)));
  Lanes r = fma(n, every(-0.693359375f), x);
  r = fma(n, every(2.12194440e-4f), r);
  Lanes p = every(1.9875691500e-4f);
  p = fma(p, r, every(1.3981999507e-3f));
  p = fma(p, r, every(8.3334519073e-3f));
  p = fma(p, r, every(4.1665795894e-2f));
  p = fma(p, r, every(1.6666665459e-1f));
  p = fma(p, r, every(5.0000001201e-1f));
  p = add(fma(p, mul(r, r), r), every(1.0f));
  return times_power(p, n);
}

void quantise(const float* row, int count, void* codes, float* scale, int32_t* zero_point) {
  Lanes low = zero(), high = zero();  // the range holds 0
  for (int k = 0; k < count; k += kLanes) {
    const Lanes x = load(row + k);
    low = minimum(low, x);
    high = maximum(high, x);
  }
  const float least = lowest(low), range = highest(high) - least;
  const float inverse = range > 0 ? 255.0f / range : 0.0f;
  const float shift = -128.0f - __builtin_rintf(least * inverse);
  *scale = range / 255.0f;
  *zero_point = static_cast<int32_t>(shift);
  const Lanes by = every(inverse), up = every(shift), top = every(127.0f), bottom = every(-128.0f);
  Code* to = static_cast<Code*>(codes);
  for (int k = 0; k < count; k += kLanes) {
    const Lanes x = add(nearest(mul(load(row + k), by)), up);
    store_codes(to + k, maximum(minimum(x, top), bottom));
  }
}

// Rows × one block of columns.
template <int kRows>
inline void tile_f32(const float* w, int in, const float* rows, int stride, Lanes start, float* out,
                     int out_stride) {
  Lanes total[kRows];
  for (int r = 0; r < kRows; ++r) total[r] = start;
  for (int k = 0; k < in; ++k) {
    const Lanes column = load(w + static_cast<size_t>(k) * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
      total[r] = fma(every(rows[static_cast<size_t>(r) * stride + k]), column, total[r]);
  }
  for (int r = 0; r < kRows; ++r) store(out + static_cast<size_t>(r) * out_stride, total[r]);
}

void multiply_f32(const Packed& w, const float* rows, int stride, int count, float* out, int out_stride) {
  for (int block = 0; block < w.out / kLanes; ++block) {
    const float* values = w.values + static_cast<size_t>(block) * w.in * kLanes;
    const Lanes start = w.bias ? load(w.bias + block * kLanes) : zero();
    int r = 0;
    const auto tile = [&](auto kernel, int rows_at_once) {
      kernel(values, w.in, rows + static_cast<size_t>(r) * stride, stride, start,
             out + static_cast<size_t>(r) * out_stride + block * kLanes, out_stride);
      r += rows_at_once;
    };
    while (count - r >= 6) tile(tile_f32<6>, 6);
    switch (count - r) {
      case 5: tile(tile_f32<5>, 5); break;
      case 4: tile(tile_f32<4>, 4); break;
      case 3: tile(tile_f32<3>, 3); break;
      case 2: tile(tile_f32<2>, 2); break;
      case 1: tile(tile_f32<1>, 1); break;
      default: break;
    }
  }
}

void normalise(const float* row, const float* weight, const float* bias, int count, float* out) {
  Lanes total = zero();
  for (int k = 0; k < count; k += kLanes) total = add(total, load(row + k));
  const float mean = sum(total) / static_cast<float>(count);
  Lanes square = zero();
  for (int k = 0; k < count; k += kLanes) {
    const Lanes centred = sub(load(row + k), every(mean));
    square = fma(centred, centred, square);
  }
  const float deviation = __builtin_sqrtf(sum(square) / static_cast<float>(count) + 1e-5f);
  const Lanes by = every(1.0f / deviation);
  for (int k = 0; k < count; k += kLanes) {
    const Lanes centred = sub(load(row + k), every(mean));
    store(out + k, fma(mul(centred, by), load(weight + k), load(bias + k)));
  }
}

void add_to(float* to, const float* what, int count) {
  for (int k = 0; k < count; k += kLanes) store(to + k, add(load(to + k), load(what + k)));
}

void relu(float* values, int count) {
  for (int k = 0; k < count; k += kLanes) store(values + k, maximum(load(values + k), zero()));
}

// x/2 · (1 + erf(x/√2)); erf by Abramowitz and Stegun 7.1.26, absolute error 1.5e-7.
void gelu(float* values, int count) {
  for (int k = 0; k < count; k += kLanes) {
    const Lanes x = load(values + k);
    const Lanes z = mul(maximum(x, sub(zero(), x)), every(0.70710678118654752f));
    const Lanes t = divide(every(1.0f), fma(z, every(0.3275911f), every(1.0f)));
    Lanes p = every(1.061405429f);
    p = fma(p, t, every(-1.453152027f));
    p = fma(p, t, every(1.421413741f));
    p = fma(p, t, every(-0.284496736f));
    p = mul(fma(p, t, every(0.254829592f)), t);
    // 1 - erf(|z|), which for x ≥ 0 is what is missing of x, and for x < 0 what there is.
    const Lanes rest = mul(mul(p, exponential(mul(sub(zero(), z), z))), mul(every(0.5f), x));
    const Lanes positive = maximum(x, zero());
    // x ≥ 0: x - rest; x < 0: rest, which is negative there.
    store(values + k, sub(positive, mul(rest, divide(x, maximum(maximum(x, sub(zero(), x)), every(1e-30f))))));
  }
}

float exponentials(float* values, int count) {
  const int whole = count / kLanes * kLanes;
  float rest[kLanes];
  for (int i = 0; i < kLanes; ++i) rest[i] = whole + i < count ? values[whole + i] : -3e38f;
  Lanes top = load(rest);
  for (int k = 0; k < whole; k += kLanes) top = maximum(top, load(values + k));
  const Lanes maximal = every(highest(top));
  Lanes total = zero();
  for (int k = 0; k < whole; k += kLanes) {
    const Lanes e = exponential(sub(load(values + k), maximal));
    store(values + k, e);
    total = add(total, e);
  }
  if (whole < count) {
    const Lanes e = exponential(sub(load(rest), maximal));
    store(rest, e);
    for (int i = count - whole; i < kLanes; ++i) rest[i] = 0;
    total = add(total, load(rest));
    store(values + whole, load(rest));
  }
  return sum(total);
}

void scale_by(float* values, float by, int count) {
  for (int k = 0; k < count; k += kLanes) store(values + k, mul(load(values + k), every(by)));
}

inline Lanes load_row(const float* from) { return load(from); }
inline Lanes load_row(const uint16_t* from) { return load_half(from); }

// The first `count` numbers of a row, fewer than a register holds, and zeros.
template <class Element>
inline Lanes load_rest(const Element* row, int count) {
  Element rest[kLanes] = {};
  for (int i = 0; i < count; ++i) rest[i] = row[i];
  return load_row(rest);
}

template <int kRows, class Element>
inline void dots_of(const Element* const* rows, const float* x, int count, float* out) {
  const int whole = count / kLanes * kLanes;
  Lanes total[kRows];
  for (int r = 0; r < kRows; ++r) total[r] = zero();
  for (int k = 0; k < whole; k += kLanes) {
    const Lanes at = load(x + k);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) total[r] = fma(load_row(rows[r] + k), at, total[r]);
  }
  if (whole < count) {
    const Lanes at = load(x + whole);
    for (int r = 0; r < kRows; ++r) total[r] = fma(load_rest(rows[r] + whole, count - whole), at, total[r]);
  }
  for (int r = 0; r < kRows; ++r) out[r] = sum(total[r]);
}

template <class Element>
inline void dots(const Element* rows, int stride, const int32_t* index, int many, const float* x, int count,
                 float* out) {
  int i = 0;
  for (; i + 4 <= many; i += 4) {
    const Element* four[4];
    for (int r = 0; r < 4; ++r) four[r] = rows + static_cast<size_t>(index[i + r]) * stride;
    dots_of<4>(four, x, count, out + i);
  }
  for (; i < many; ++i) {
    const Element* one[1] = {rows + static_cast<size_t>(index[i]) * stride};
    dots_of<1>(one, x, count, out + i);
  }
}

void dots_f32(const float* rows, int stride, const int32_t* index, int many, const float* x, int count,
              float* out) {
  dots(rows, stride, index, many, x, count, out);
}

void dots_f16(const uint16_t* rows, int stride, const int32_t* index, int many, const float* x, int count,
              float* out) {
  dots(rows, stride, index, many, x, count, out);
}

template <int kRows>
inline void coded_of(const uint16_t* const* rows, const uint8_t* const* codes, const uint16_t* book, int wide,
                     const float* x, int count, float* out) {
  constexpr int kHalf = kLanes / 2;
  const uint16_t nothing[kHalf] = {};
  Lanes total[kRows];
  for (int r = 0; r < kRows; ++r) total[r] = zero();
  for (int k = 0; k < count; k += kLanes) {
    const Lanes at = load(x + k);
    // Where numbers k to k + 7 and k + 8 to k + 15 of a remainder stand: stretch, and place in it.
    const int first = k / wide, second = (k + kHalf) / wide;
    const uint16_t* low = book + static_cast<size_t>(first) * kEntries * wide + (k - first * wide);
    const uint16_t* high = book + static_cast<size_t>(second) * kEntries * wide + (k + kHalf - second * wide);
    const bool whole = k + kLanes <= count;
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const Lanes left = load_halves(low + codes[r][first] * wide,
                                     k + kHalf < count ? high + codes[r][second] * wide : nothing);
      const Lanes own = whole ? load_half(rows[r] + k) : load_rest(rows[r] + k, count - k);
      total[r] = fma(as_half(add(own, left)), at, total[r]);
    }
  }
  for (int r = 0; r < kRows; ++r) out[r] = sum(total[r]);
}

void dots_coded(const uint16_t* rows, int stride, const int32_t* index, const uint8_t* const* remainders,
                const uint16_t* book, int wide, int many, const float* x, int count, float* out) {
  int i = 0;
  for (; i + 4 <= many; i += 4) {
    const uint16_t* four[4];
    for (int r = 0; r < 4; ++r) four[r] = rows + static_cast<size_t>(index[i + r]) * stride;
    coded_of<4>(four, remainders + i, book, wide, x, count, out + i);
  }
  for (; i < many; ++i) {
    const uint16_t* one[1] = {rows + static_cast<size_t>(index[i]) * stride};
    coded_of<1>(one, remainders + i, book, wide, x, count, out + i);
  }
}

void look_ups(const float* columns, int wide, const float* x, int count, float* out) {
  for (int first = 0; first < count; first += wide, columns += wide * kEntries, out += kEntries) {
    const int own = count - first < wide ? count - first : wide;
    for (int j = 0; j < kEntries; j += kLanes) {
      Lanes total = zero();
      for (int k = 0; k < own; ++k) total = fma(every(x[first + k]), load(columns + k * kEntries + j), total);
      store(out + j, total);
    }
  }
}

void widen(const uint16_t* from, int count, float* to) {
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) store(to + i, load_half(from + i));
  for (; i < count; ++i) to[i] = from_half(from[i]);
}

void attend(const float* query, const float* const* past, int count, int heads, int width, float* out) {
  constexpr int kMost = 32;  // a SID has at most 26 levels
  const int own = width / heads;
  float shares[kMost];
  for (int head = 0; head < heads; ++head, query += own, out += own) {
    for (int j = 0; j < count; ++j) {
      Lanes total = zero();
      for (int k = 0; k < own; k += kLanes)
        total = fma(load(query + k), load(past[j] + head * own + k), total);
      shares[j] = sum(total);
    }
    const float by = 1.0f / exponentials(shares, count);
    for (int k = 0; k < own; k += kLanes) {
      Lanes mixed = zero();
      for (int j = 0; j < count; ++j)
        mixed = fma(every(shares[j]), load(past[j] + width + head * own + k), mixed);
      store(out + k, mul(mixed, every(by)));
    }
  }
}

// Known while compiling: nothing of a file may run before it is known that the machine can.
constexpr Kernels table(const char* name) {
  return {name,   sizeof(Code), quantise,     multiply_i8, multiply_f32, normalise, add_to, relu,
          gelu,   exponentials, scale_by,     dots_f32,    dots_f16,     dots_coded,
          look_ups, widen, attend};
}

// What an integer sum means: scale · (Σ codes·w - zero · Σ w) + bias.
inline Lanes output(Lanes exact, float row_scale, const Packed& w, int column) {
  const Lanes start = w.bias ? load(w.bias + column) : zero();
  return fma(exact, mul(every(row_scale), load(w.scale + column)), start);
}

}  // namespace
