// The live prefix tree as the caller holds it: arrays that are read and never kept.
#pragma once

#include <cstdint>

namespace onesearch {

constexpr int kMostLevels = 26;

// Pointers to one array a level ℓ = 0 … depth-1; n_ℓ nodes at depth ℓ, n_0 = 1.
struct Tree {
  int32_t depth;
  int32_t dimension;                 // D of the vectors
  const int32_t* const* first_child;  // i32[n_ℓ + 1]: the children of a node of depth ℓ are neighbours
  const int32_t* const* code;         // i32[n_{ℓ+1}]
  const uint16_t* const* vectors;     // f16[n_{ℓ+1}, D]
  const float* const* log_mass;       // f32[n_{ℓ+1}], -inf where nothing is alive
};

}  // namespace onesearch
