// AVX-512 with products of 8-bit codes summed in 32 bits (VNNI): 64 of them an instruction.
#include "codes_avx512.h"
#include "kernels_tables.h"

namespace {

void multiply_i8(const onesearch::Packed& w, const onesearch::Codes& rows, int count, float* out, int out_stride);

}  // namespace

#include "kernels.inl"

namespace {

// Adds the products of one row's four codes with 4 · 16 or 16 columns. In assembler, since compilers copy the
// totals to and fro around the intrinsic.
inline void step(const Code* row, const __m512i (&columns)[4], __m512i* totals) {
  __m512i four;
  asm("vpbroadcastd %5, %4\n\t"
      "vpdpbusd %6, %4, %0\n\t"
      "vpdpbusd %7, %4, %1\n\t"
      "vpdpbusd %8, %4, %2\n\t"
      "vpdpbusd %9, %4, %3"
      : "+v"(totals[0]), "+v"(totals[1]), "+v"(totals[2]), "+v"(totals[3]), "=&v"(four)
      : "m"(*reinterpret_cast<const int32_t*>(row)), "v"(columns[0]), "v"(columns[1]), "v"(columns[2]),
        "v"(columns[3]));
}

inline void step(const Code* row, const __m512i (&columns)[1], __m512i* totals) {
  __m512i four;
  asm("vpbroadcastd %2, %1\n\t"
      "vpdpbusd %3, %1, %0"
      : "+v"(totals[0]), "=&v"(four)
      : "m"(*reinterpret_cast<const int32_t*>(row)), "v"(columns[0]));
}

}  // namespace

#include "product_avx512.inl"

namespace onesearch {
extern const Kernels kAvx512Vnni;
constexpr Kernels kAvx512Vnni = table("avx512vnni");
}
