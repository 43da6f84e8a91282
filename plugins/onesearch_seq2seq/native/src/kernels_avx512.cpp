// AVX-512 (F, BW, DQ, VL) without products of 8-bit codes summed in 32 bits.
#include "codes_avx512.h"
#include "kernels_tables.h"

namespace {

void multiply_i8(const onesearch::Packed& w, const onesearch::Codes& rows, int count, float* out, int out_stride);

}  // namespace

#include "kernels.inl"

namespace {

// Adds the products of one row's four codes with 4 · 16 or 16 columns. The sums of two products fit 16 bits, since
// the weights are packed so. In assembler, since compilers run out of registers otherwise.
inline void step(const Code* row, const __m512i (&columns)[4], __m512i* totals) {
  const __m512i ones = _mm512_set1_epi16(1);
  __m512i four, product;
  asm("vpbroadcastd %6, %4\n\t"
      "vpmaddubsw %7, %4, %5\n\t"
      "vpmaddwd %11, %5, %5\n\t"
      "vpaddd %5, %0, %0\n\t"
      "vpmaddubsw %8, %4, %5\n\t"
      "vpmaddwd %11, %5, %5\n\t"
      "vpaddd %5, %1, %1\n\t"
      "vpmaddubsw %9, %4, %5\n\t"
      "vpmaddwd %11, %5, %5\n\t"
      "vpaddd %5, %2, %2\n\t"
      "vpmaddubsw %10, %4, %5\n\t"
      "vpmaddwd %11, %5, %5\n\t"
      "vpaddd %5, %3, %3"
      : "+v"(totals[0]), "+v"(totals[1]), "+v"(totals[2]), "+v"(totals[3]), "=&v"(four), "=&v"(product)
      : "m"(*reinterpret_cast<const int32_t*>(row)), "v"(columns[0]), "v"(columns[1]), "v"(columns[2]),
        "v"(columns[3]), "v"(ones));
}

inline void step(const Code* row, const __m512i (&columns)[1], __m512i* totals) {
  const __m512i ones = _mm512_set1_epi16(1);
  __m512i product;
  asm("vpbroadcastd %2, %1\n\t"
      "vpmaddubsw %3, %1, %1\n\t"
      "vpmaddwd %4, %1, %1\n\t"
      "vpaddd %1, %0, %0"
      : "+v"(totals[0]), "=&v"(product)
      : "m"(*reinterpret_cast<const int32_t*>(row)), "v"(columns[0]), "v"(ones));
}

}  // namespace

#include "product_avx512.inl"

namespace onesearch {
extern const Kernels kAvx512;
constexpr Kernels kAvx512 = table("avx512");
}
