// The network: an encoder over a prompt, and a decoder that takes any rows of prefixes at once.
//
// Rows never wait for each other inside the decoder, so a thread takes some rows through the whole of it. The
// keys and values of cross-attention belong to the query, those of self-attention to a prefix: a prefix knows
// its parent, and nothing is copied when beams move.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "kernels.h"
#include "memory.h"
#include "pool.h"

namespace onesearch {

// An array of the weights' file, borrowed.
struct Tensor {
  enum Type : int32_t { f32 = 0, i8 = 1, i32 = 2, f16 = 3 };
  Type type;
  const void* data;
  std::vector<int64_t> shape;
};
using Tensors = std::map<std::string, Tensor>;

struct Dimensions {
  int width = 0, layers = 0, hidden = 0, heads = 0, levels = 0;
  int vector = 0;      // D of the query's vector
  int steer_rank = 0;  // 0: no steering
  int start = 0;       // the id that the decoder reads first
  bool gelu = false, post_norm = false;
};

struct Norm {
  const float* weight;
  const float* bias;
};

struct Layer {
  Norm attention_norm, feed_norm, cross_norm;  // cross_*: of the decoder only
  Packed qkv, out, cross_q, cross_kv, cross_out, up, down;
};

// Codes of one level from a state: rows of `codes` by code, perhaps behind a map to a lower rank.
struct Head {
  Packed down;  // in == 0: the head is full
  const float* rows = nullptr;  // f32[codes, stride]; or
  const uint16_t* halves = nullptr;
  const float* bias = nullptr;
  int rank = 0, stride = 0, codes = 0;
  Packed steer;
};

// What one thread works with.
struct Scratch {
  Array<float> x, y, wide, mixed, scores, query;
  Array<uint8_t> codes;
  Array<float> code_scale;
  Array<int32_t> code_zero;
  Array<const float*> past;
  Array<float> head_in, steer_in, part;
  Array<int32_t> index;
  Array<const uint8_t*> remainders;
  Array<float> look_ups, masses;
};

// Keys and values of S positions, packed as weights for matrix products, per head.
struct Packs {
  Array<float> keys;    // [head][S / 16][d/H][16]
  Array<float> values;  // [head][d/H / 16][S][16]
};

// What the decoder reads of one query.
struct Memory {
  int positions = 0;
  bool blind = false;  // no position was seen: all are, equally
  std::vector<Packs> layers;
};

// Prefixes that went through the decoder, or are about to.
struct Paths {
  Array<int32_t> parent, token, depth;  // parent -1 and depth 0: the start
  std::vector<Array<float>> past;       // per layer [prefix][2d]: keys, values
  Array<float> states;                  // [prefix][d]

  int count() const { return static_cast<int>(parent.size()); }
  int append(int32_t from, int32_t id, int32_t at);
  void clear();
};

class Network {
 public:
  // Throws std::runtime_error naming the tensor that is missing or of another shape.
  Network(const Tensors& tensors, const Dimensions& dims, const Kernels& kernels);

  const Dimensions& dims() const { return dims_; }
  const std::vector<Head>& heads() const { return heads_; }
  const Packed& keys() const { return keys_; }
  const Kernels& kernels() const { return kernels_; }
  int offset(int level) const { return offsets_[level]; }
  int text() const { return offsets_[0]; }

  // Prompt ids i32[T] and seen bool[T] (positions that are not seen are left out), prefix f32[P, d].
  void encode(const int32_t* ids, const uint8_t* seen, int tokens, const float* prefix, int prefixes, Pool& pool,
              std::vector<Scratch>& scratch, Memory& memory) const;

  // Makes room for the rows of all paths; then `decode` may run on different rows in several threads.
  void reserve(Paths& paths) const;
  // Rows [first, last) of the paths: their states, keys and values. Ancestors are done, or among the rows.
  void decode(Paths& paths, const Memory& memory, int first, int last, Scratch& scratch) const;

  // rows · wᵀ + bias for any of this network's matrices, in the arithmetic it was saved for.
  void apply(const Packed& w, const float* rows, int stride, int count, float* out, int out_stride,
             Scratch& scratch) const;

 private:
  void embed(const int32_t* ids, const int32_t* positions, int count, const float* table, const Norm& norm,
             float* out) const;
  const float* normalised(const float* x, const Norm& norm, int rows, Array<float>& into) const;
  void join(float* x, const float* what, const Norm& norm, int rows) const;
  void feed(const Layer& layer, float* x, int rows, Scratch& scratch) const;
  void mix(const Packs& packs, int positions, bool blind, const float* query, int stride, int rows, float* out,
           Scratch& scratch) const;
  void pack(const float* rows, int stride, int count, int first, int positions, Packs& packs) const;
  void size(Packs& packs, int positions) const;

  Dimensions dims_;
  const Kernels& kernels_;
  const float* tokens_ = nullptr;
  const float *encoder_positions_ = nullptr, *decoder_positions_ = nullptr;
  Norm encoder_input_{}, encoder_output_{}, decoder_input_{}, decoder_output_{};
  int prompt_limit_ = 0, vocabulary_ = 0;
  std::vector<Layer> encoder_, decoder_;
  std::vector<Head> heads_;
  Packed keys_;  // steering's rank → D
  std::vector<int> offsets_;
};

}  // namespace onesearch
