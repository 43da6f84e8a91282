// The 8-bit product in registers of 512 bits. Included by a file of kernels that has a `step`.

namespace {

// kRows rows × kBlocks blocks of 16 columns: the more, the fewer loads a product.
template <int kRows, int kBlocks>
inline void block_i8(const Packed& w, int column, const Codes& rows, int r, float* out, int out_stride) {
  __m512i totals[kRows * kBlocks];
  const Code* from = static_cast<const Code*>(rows.codes) + static_cast<size_t>(r) * w.in;
  const int8_t* codes = w.codes + static_cast<size_t>(column) * w.in;
  const size_t apart = static_cast<size_t>(kLanes) * w.in;
#pragma GCC unroll 24
  for (int i = 0; i < kRows * kBlocks; ++i) totals[i] = _mm512_setzero_si512();
  for (int k = 0; k < w.in; k += 4, codes += 4 * kLanes) {
    __m512i columns[kBlocks];
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b) columns[b] = _mm512_loadu_si512(codes + b * apart);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) step(from + static_cast<size_t>(i) * w.in + k, columns, totals + i * kBlocks);
  }
#pragma GCC unroll 24
  for (int i = 0; i < kRows * kBlocks; ++i) {
    const int row = r + i / kBlocks, at = column + i % kBlocks * kLanes;
    const __m512i zero_point = _mm512_set1_epi32(rows.zero[row] + 128);
    const __m512i exact =
        _mm512_sub_epi32(totals[i], _mm512_mullo_epi32(zero_point, _mm512_loadu_si512(w.sums + at)));
    store(out + static_cast<size_t>(row) * out_stride + at,
          output({_mm512_cvtepi32_ps(exact)}, rows.scale[row], w, at));
  }
}

template <int kBlocks>
inline void columns_i8(const Packed& w, int column, const Codes& rows, int count, float* out, int out_stride) {
  int r = 0;
  for (; count - r >= 6; r += 6) block_i8<6, kBlocks>(w, column, rows, r, out, out_stride);
  switch (count - r) {
    case 5: block_i8<5, kBlocks>(w, column, rows, r, out, out_stride); break;
    case 4: block_i8<4, kBlocks>(w, column, rows, r, out, out_stride); break;
    case 3: block_i8<3, kBlocks>(w, column, rows, r, out, out_stride); break;
    case 2: block_i8<2, kBlocks>(w, column, rows, r, out, out_stride); break;
    case 1: block_i8<1, kBlocks>(w, column, rows, r, out, out_stride); break;
    default: break;
  }
}

void multiply_i8(const Packed& w, const Codes& rows, int count, float* out, int out_stride) {
  int column = 0;
  for (; w.out - column >= 4 * kLanes; column += 4 * kLanes)
    columns_i8<4>(w, column, rows, count, out, out_stride);
  for (; column < w.out; column += kLanes) columns_i8<1>(w, column, rows, count, out, out_stride);
}

}  // namespace
