// The 8-bit product in registers of 256 bits. Included by a file of kernels that has a `step`.

namespace {

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
