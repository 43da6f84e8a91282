// The live prefix tree as the caller holds it: arrays that are read and never kept.
#pragma once

#include <cstdint>

namespace onesearch {

constexpr int kMostLevels = 26;

// What the vectors of a depth's nodes have beyond those of their codes; nodes without siblings have nothing.
struct Remainders {
  const uint16_t* book;    // f16[⌈D / w⌉, 256, w]; nullptr: there are none
  const float* columns;    // the same as f32[⌈D / w⌉, w, 256]
  const uint64_t* parted;  // a bit a node: whether it has siblings
  const int32_t* before;   // nodes with siblings before each word of bits
  const uint8_t* codes;    // u8[m, bytes], of those nodes in their order
  int32_t bytes;           // ⌈D / w⌉
  int32_t wide;            // w

  const uint8_t* of(int32_t node) const {
    const uint64_t word = parted[node >> 6], bit = uint64_t{1} << (node & 63);
    if (!(word & bit)) return nullptr;
    const int64_t row = before[node >> 6] + __builtin_popcountll(word & (bit - 1));
    return codes + row * bytes;
  }
};

// Pointers to one array a level ℓ = 0 … depth-1; n_ℓ nodes at depth ℓ, n_0 = 1.
struct Tree {
  int32_t depth;
  int32_t dimension;                 // D of the vectors
  const int32_t* const* first_child;  // i32[n_ℓ + 1]: the children of a node of depth ℓ are neighbours
  const void* const* code;            // u8, u16 or u32[n_{ℓ+1}]
  const int32_t* code_bytes;          // [L]: 1, 2 or 4
  const uint16_t* const* vectors;     // f16[n_{ℓ+1}, D]; with by_code f16[K_ℓ, D]
  int32_t by_code;                    // whether a child's vector is that of its code, and its remainder
  const Remainders* remainders;       // [L], some of which are empty; nullptr: there are none
  const uint16_t* const* log_mass;    // f16[n_{ℓ+1}], -inf where nothing is alive

  int32_t code_of(int level, int32_t node) const {
    const void* codes = code[level];
    switch (code_bytes[level]) {
      case 1: return static_cast<const uint8_t*>(codes)[node];
      case 2: return static_cast<const uint16_t*>(codes)[node];
      default: return static_cast<int32_t>(static_cast<const uint32_t*>(codes)[node]);
    }
  }
};

}  // namespace onesearch
