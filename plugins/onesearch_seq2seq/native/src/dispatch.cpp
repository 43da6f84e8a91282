// Which instruction sets this machine runs, asked of the processor itself: compilers' own checks differ.
#include <cstring>

#include "kernels_tables.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace onesearch {
namespace {

struct Machine {
  bool avx2 = false, avx_vnni = false, avx512 = false, avx512_vnni = false;
};

#if defined(__x86_64__)
Machine look() {
  Machine machine;
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return machine;
  const bool fma = c >> 12 & 1, saves = c >> 27 & 1, avx = c >> 28 & 1, f16c = c >> 29 & 1;
  if (!saves || !avx) return machine;
  unsigned low, high;
  // What the operating system keeps of the registers: XMM and YMM, and of AVX-512.
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  const bool ymm = (low & 6) == 6, zmm = (low & 0xe6) == 0xe6;
  if (!ymm || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return machine;
  machine.avx2 = (b >> 5 & 1) && fma && f16c;
  const bool f = b >> 16 & 1, dq = b >> 17 & 1, bw = b >> 30 & 1, vl = b >> 31 & 1, vnni = c >> 11 & 1;
  machine.avx512 = machine.avx2 && zmm && f && dq && bw && vl;
  machine.avx512_vnni = machine.avx512 && vnni;
  if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) machine.avx_vnni = machine.avx2 && (a >> 4 & 1);
  return machine;
}
#endif

}  // namespace

int available(const Kernels** tables, int limit) {
  int count = 0;
  const auto offer = [&](bool runs, const Kernels& table) {
    if (runs && count < limit) tables[count++] = &table;
  };
  offer(true, kPlain);
#if defined(__x86_64__)
  static const Machine machine = look();
  offer(machine.avx2, kAvx2);
  offer(machine.avx_vnni, kAvxVnni);
  offer(machine.avx512, kAvx512);
  offer(machine.avx512_vnni, kAvx512Vnni);
#endif
  return count;
}

const Kernels* choose(const char* name) {
  const Kernels* tables[8];
  const int count = available(tables, 8);
  if (!name || !*name) return tables[count - 1];
  for (int i = 0; i < count; ++i)
    if (!std::strcmp(tables[i]->name, name)) return tables[i];
  return nullptr;
}

}  // namespace onesearch
