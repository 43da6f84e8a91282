// The arithmetic, once per instruction set, behind one table of functions.
//
// Every set gives the same bits. Sums of floats are taken in an order that does not depend on the width of the
// machine's registers: a matrix product adds along its depth one term at a time, in fused multiply-adds; a
// reduction keeps 16 partial sums and adds them as a tree. Integer sums are exact. So a search answers the same
// on every machine, and all sets can be tested against the plain one.
#pragma once

#include <cstddef>
#include <cstdint>

namespace onesearch {

// Partial sums of a reduction, and columns of a block of packed weights.
constexpr int kLanes = 16;

// Entries of the book of a stretch of remainders: what a byte can say.
constexpr int kEntries = 256;

constexpr int padded(int count) { return (count + kLanes - 1) / kLanes * kLanes; }

// A weight matrix by blocks of 16 output columns; `out` is a multiple of 16.
//   float: values[block][in][16].
//   int8: codes[block][in / 4][16][4]; an output is scale[column] times the sum of products; sums[column] is
//   the sum of the column's codes. `in` is a multiple of 8. Of the four codes of a column that meet in a sum of
//   16 bits (inputs 8g + 0, 1, 4, 5 and 8g + 2, 3, 6, 7) those of one sign sum up to 128 at most.
struct Packed {
  const float* values = nullptr;
  const int8_t* codes = nullptr;
  const float* scale = nullptr;
  const int32_t* sums = nullptr;
  const float* bias = nullptr;  // may be absent
  int in = 0;
  int out = 0;
};

// Rows of 8-bit activations: value ≈ scale · (code - zero), with codes in [-128, 127] kept as each instruction
// set wants them (kernels.code_bytes each).
struct Codes {
  void* codes;
  float* scale;
  int32_t* zero;
};

struct Kernels {
  const char* name;
  size_t code_bytes;

  // One row: codes over the range of its own values, so that no row depends on another.
  void (*quantise)(const float* row, int count, void* codes, float* scale, int32_t* zero);
  // out[r][n] = Σ_k row[r][k] · w[k][n] + bias[n]. Integer sums are exact: of 32 bits, or of 16 bits where the
  // weights cannot overflow them.
  void (*multiply_i8)(const Packed& w, const Codes& rows, int count, float* out, int out_stride);
  void (*multiply_f32)(const Packed& w, const float* rows, int stride, int count, float* out, int out_stride);

  // Layer normalisation; count is a multiple of 16.
  void (*normalise)(const float* row, const float* weight, const float* bias, int count, float* out);
  void (*add)(float* to, const float* what, int count);
  void (*relu)(float* values, int count);
  void (*gelu)(float* values, int count);
  // exp(value - maximum) in place, to padded(count) values, of which those past count become 0; the sum.
  float (*exponentials)(float* values, int count);
  void (*scale)(float* values, float by, int count);

  // out[i] = ⟨rows[index[i]], x⟩ for rows of `stride` elements; x has padded(count) values, zeros past count.
  void (*dots_f32)(const float* rows, int stride, const int32_t* index, int many, const float* x, int count,
                   float* out);
  void (*dots_f16)(const uint16_t* rows, int stride, const int32_t* index, int many, const float* x, int count,
                   float* out);
  // The same with f16(rows[index[i]] + remainder i) in place of the rows. A remainder is a byte for `wide` numbers,
  // a multiple of 8: which entry of the book f16[⌈count / wide⌉][256][wide] they are.
  void (*dots_coded)(const uint16_t* rows, int stride, const int32_t* index, const uint8_t* const* remainders,
                     const uint16_t* book, int wide, int many, const float* x, int count, float* out);
  // What x says of each entry of such a book, whose columns are f32[⌈count / wide⌉][wide][256]:
  // out[s][j] = Σ_k columns[s][k][j] · x[s · wide + k].
  void (*look_ups)(const float* columns, int wide, const float* x, int count, float* out);
  // Halves to floats.
  void (*widen)(const uint16_t* from, int count, float* to);
  // Attention of one query to `count` positions, whose keys and values are past[j][0 … d) and past[j][d … 2d).
  void (*attend)(const float* query, const float* const* past, int count, int heads, int width, float* out);
};

// Tables this build holds and this machine runs, the plainest first.
int available(const Kernels** tables, int limit);

// By name, or the best where the name is empty; nullptr where there is none of that name here.
const Kernels* choose(const char* name);

}  // namespace onesearch
