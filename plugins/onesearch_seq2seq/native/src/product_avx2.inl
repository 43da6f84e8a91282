// Shared by the 8-bit products in registers of 256 bits.

namespace {

// What the integer totals of a row and 16 columns mean, written out.
inline void finish(__m256i low, __m256i high, const Packed& w, int column, const Codes& rows, int r, float* out,
                   int out_stride) {
  const __m256i* sums = reinterpret_cast<const __m256i*>(w.sums + column);
  const __m256i zero_point = _mm256_set1_epi32(rows.zero[r] + 128);
  const __m256i a = _mm256_sub_epi32(low, _mm256_mullo_epi32(zero_point, _mm256_loadu_si256(sums)));
  const __m256i b = _mm256_sub_epi32(high, _mm256_mullo_epi32(zero_point, _mm256_loadu_si256(sums + 1)));
  store(out + static_cast<size_t>(r) * out_stride + column,
        output({_mm256_cvtepi32_ps(a), _mm256_cvtepi32_ps(b)}, rows.scale[r], w, column));
}

inline __m256i codes_at(const int8_t* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}

}  // namespace
