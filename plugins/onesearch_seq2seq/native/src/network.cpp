#include "network.h"

#include <algorithm>
#include <stdexcept>

namespace onesearch {
namespace {

// Finds arrays by name and checks their shapes.
class Finder {
 public:
  explicit Finder(const Tensors& tensors) : tensors_(tensors) {}

  bool has(const std::string& name) const { return tensors_.count(name) != 0; }

  const Tensor& any(const std::string& name, size_t axes, Tensor::Type type) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) throw std::runtime_error("weights: no tensor " + name);
    if (found->second.type != type || found->second.shape.size() != axes)
      throw std::runtime_error("weights: " + name + " is of another type or number of axes");
    return found->second;
  }

  const float* floats(const std::string& name, std::vector<int64_t> shape) const {
    const Tensor& tensor = any(name, shape.size(), Tensor::f32);
    for (size_t axis = 0; axis < shape.size(); ++axis)
      if (shape[axis] >= 0 && tensor.shape[axis] != shape[axis])
        throw std::runtime_error("weights: " + name + " is of another shape");
    return static_cast<const float*>(tensor.data);
  }

  Norm norm(const std::string& name, int width) const {
    return {floats(name + ".weight", {width}), floats(name + ".bias", {width})};
  }

  // A matrix: `name.codes` with scale and sums, or `name.values`; and `name.bias` where it has one.
  Packed matrix(const std::string& name, int in, int out) const {
    Packed w;
    w.in = in;
    w.out = padded(out);
    const int64_t blocks = w.out / kLanes;
    if (has(name + ".codes")) {
      const Tensor& codes = any(name + ".codes", 4, Tensor::i8);
      if (in % 8 || codes.shape != std::vector<int64_t>{blocks, in / 4, kLanes, 4})
        throw std::runtime_error("weights: " + name + ".codes is of another shape");
      w.codes = static_cast<const int8_t*>(codes.data);
      w.scale = floats(name + ".scale", {w.out});
      const Tensor& sums = any(name + ".sums", 1, Tensor::i32);
      if (sums.shape[0] != w.out) throw std::runtime_error("weights: " + name + ".sums is of another shape");
      w.sums = static_cast<const int32_t*>(sums.data);
    } else {
      w.values = floats(name + ".values", {blocks, in, kLanes});
    }
    if (has(name + ".bias")) w.bias = floats(name + ".bias", {w.out});
    return w;
  }

 private:
  const Tensors& tensors_;
};

}  // namespace

int Paths::append(int32_t from, int32_t id, int32_t at) {
  parent.push_back(from);
  token.push_back(id);
  depth.push_back(at);
  return count() - 1;
}

void Paths::clear() {
  parent.clear();
  token.clear();
  depth.clear();
  states.clear();
  for (Array<float>& layer : past) layer.clear();
}

Network::Network(const Tensors& tensors, const Dimensions& dims, const Kernels& kernels)
    : dims_(dims), kernels_(kernels) {
  const Finder find(tensors);
  const int d = dims.width;
  if (d <= 0 || dims.heads <= 0 || d % dims.heads || d / dims.heads % kLanes || dims.hidden % kLanes ||
      dims.levels < 1 || dims.levels > 26)
    throw std::runtime_error("weights: dimensions that this engine cannot run");
  tokens_ = find.floats("tokens", {-1, d});
  vocabulary_ = static_cast<int>(find.any("tokens", 2, Tensor::f32).shape[0]);
  encoder_positions_ = find.floats("encoder.positions", {-1, d});
  prompt_limit_ = static_cast<int>(find.any("encoder.positions", 2, Tensor::f32).shape[0]);
  decoder_positions_ = find.floats("decoder.positions", {-1, d});
  if (find.any("decoder.positions", 2, Tensor::f32).shape[0] < dims.levels)
    throw std::runtime_error("weights: decoder.positions has too few rows");
  encoder_input_ = find.norm("encoder.input_norm", d);
  decoder_input_ = find.norm("decoder.input_norm", d);
  if (!dims.post_norm) {
    encoder_output_ = find.norm("encoder.output_norm", d);
    decoder_output_ = find.norm("decoder.output_norm", d);
  }
  for (const bool decoder : {false, true}) {
    for (int number = 0; number < dims.layers; ++number) {
      const std::string name = (decoder ? "decoder.layers." : "encoder.layers.") + std::to_string(number);
      Layer layer{};
      layer.attention_norm = find.norm(name + ".attention_norm", d);
      layer.qkv = find.matrix(name + ".attention.qkv", d, 3 * d);
      layer.out = find.matrix(name + ".attention.out", d, d);
      if (decoder) {
        layer.cross_norm = find.norm(name + ".cross_norm", d);
        layer.cross_q = find.matrix(name + ".cross.q", d, d);
        layer.cross_kv = find.matrix(name + ".cross.kv", d, 2 * d);
        layer.cross_out = find.matrix(name + ".cross.out", d, d);
      }
      layer.feed_norm = find.norm(name + ".feed_norm", d);
      layer.up = find.matrix(name + ".up", d, dims.hidden);
      layer.down = find.matrix(name + ".down", dims.hidden, d);
      (decoder ? decoder_ : encoder_).push_back(layer);
    }
  }
  int codes = 0;
  for (int level = 0; level < dims.levels; ++level) {
    const std::string name = "heads." + std::to_string(level);
    const bool halves = find.has(name + ".halves");
    const Tensor& rows = halves ? find.any(name + ".halves", 2, Tensor::f16) : find.any(name + ".rows", 2, Tensor::f32);
    Head head;
    if (halves)
      head.halves = static_cast<const uint16_t*>(rows.data);
    else
      head.rows = static_cast<const float*>(rows.data);
    head.codes = static_cast<int>(rows.shape[0]);
    head.stride = static_cast<int>(rows.shape[1]);
    head.bias = find.floats(name + ".bias", {head.codes});
    head.rank = d;
    if (find.has(name + ".down.values")) {
      head.rank = head.stride;  // of the rank and the zeros that fill it up
      head.down = find.matrix(name + ".down", d, head.rank);
    }
    if (head.stride != head.rank || head.rank % kLanes)
      throw std::runtime_error("weights: " + name + ".rows is of another shape");
    if (dims.steer_rank)
      head.steer = find.matrix("steer." + std::to_string(level), d, dims.steer_rank);
    heads_.push_back(head);
    codes += head.codes;
  }
  if (dims.steer_rank) keys_ = find.matrix("keys", padded(dims.steer_rank), dims.vector);
  // Codes stand behind the text, level by level.
  int offset = vocabulary_ - codes;
  if (offset < 0) throw std::runtime_error("weights: tokens has too few rows");
  for (const Head& head : heads_) {
    offsets_.push_back(offset);
    offset += head.codes;
  }
}

void Network::apply(const Packed& w, const float* rows, int stride, int count, float* out, int out_stride,
                    Scratch& scratch) const {
  if (!w.codes) {
    kernels_.multiply_f32(w, rows, stride, count, out, out_stride);
    return;
  }
  const size_t bytes = kernels_.code_bytes * w.in;
  Codes codes{scratch.codes.need(bytes * count), scratch.code_scale.need(count), scratch.code_zero.need(count)};
  for (int r = 0; r < count; ++r)
    kernels_.quantise(rows + static_cast<size_t>(r) * stride, w.in, static_cast<uint8_t*>(codes.codes) + r * bytes,
                      codes.scale + r, codes.zero + r);
  kernels_.multiply_i8(w, codes, count, out, out_stride);
}

void Network::embed(const int32_t* ids, const int32_t* positions, int count, const float* table, const Norm& norm,
                    float* out) const {
  const int d = dims_.width;
  for (int r = 0; r < count; ++r, out += d) {
    std::copy_n(tokens_ + static_cast<size_t>(ids[r]) * d, d, out);
    kernels_.add(out, table + static_cast<size_t>(positions[r]) * d, d);
    kernels_.normalise(out, norm.weight, norm.bias, d, out);
  }
}

// What a sublayer reads: x behind its norm, or x itself where norms stand behind the sublayers.
const float* Network::normalised(const float* x, const Norm& norm, int rows, Array<float>& into) const {
  if (dims_.post_norm) return x;
  const int d = dims_.width;
  float* y = into.need(static_cast<size_t>(rows) * d);
  for (int r = 0; r < rows; ++r)
    kernels_.normalise(x + static_cast<size_t>(r) * d, norm.weight, norm.bias, d, y + static_cast<size_t>(r) * d);
  return y;
}

void Network::join(float* x, const float* what, const Norm& norm, int rows) const {
  const int d = dims_.width;
  kernels_.add(x, what, rows * d);
  if (!dims_.post_norm) return;
  for (int r = 0; r < rows; ++r, x += d) kernels_.normalise(x, norm.weight, norm.bias, d, x);
}

void Network::feed(const Layer& layer, float* x, int rows, Scratch& scratch) const {
  const int d = dims_.width, hidden = dims_.hidden;
  const float* y = normalised(x, layer.feed_norm, rows, scratch.y);
  float* inner = scratch.wide.need(static_cast<size_t>(rows) * hidden);
  apply(layer.up, y, d, rows, inner, hidden, scratch);
  (dims_.gelu ? kernels_.gelu : kernels_.relu)(inner, rows * hidden);
  float* outer = scratch.mixed.need(static_cast<size_t>(rows) * d);
  apply(layer.down, inner, hidden, rows, outer, d, scratch);
  join(x, outer, layer.feed_norm, rows);
}

void Network::size(Packs& packs, int positions) const {
  const size_t wide = static_cast<size_t>(padded(positions)) * dims_.width;
  packs.keys.resize(wide);
  packs.values.resize(static_cast<size_t>(positions) * dims_.width);
  std::fill(packs.keys.begin(), packs.keys.end(), 0.0f);
}

// Rows [first, first + count) of keys and values f32[count, 2d] into the packs of all positions.
void Network::pack(const float* rows, int stride, int count, int first, int positions, Packs& packs) const {
  const int d = dims_.width, own = d / dims_.heads, wide = padded(positions);
  for (int r = 0; r < count; ++r, rows += stride) {
    const int at = first + r;
    for (int head = 0; head < dims_.heads; ++head) {
      float* keys = packs.keys.data() + static_cast<size_t>(head) * own * wide +
                    static_cast<size_t>(at / kLanes) * own * kLanes + at % kLanes;
      const float* key = rows + head * own;
      for (int k = 0; k < own; ++k) keys[static_cast<size_t>(k) * kLanes] = key[k];
      float* values = packs.values.data() + static_cast<size_t>(head) * own * positions + at * kLanes;
      const float* value = rows + d + head * own;
      for (int k = 0; k < own; k += kLanes)
        std::copy_n(value + k, kLanes, values + static_cast<size_t>(k) * positions);
    }
  }
}

// Attention of rows over a query's positions.
void Network::mix(const Packs& packs, int positions, bool blind, const float* query, int stride, int rows,
                  float* out, Scratch& scratch) const {
  const int d = dims_.width, own = d / dims_.heads, wide = padded(positions);
  float* scores = scratch.scores.need(static_cast<size_t>(rows) * wide);
  for (int head = 0; head < dims_.heads; ++head) {
    Packed keys, values;
    keys.values = packs.keys.data() + static_cast<size_t>(head) * own * wide;
    keys.in = own;
    keys.out = wide;
    values.values = packs.values.data() + static_cast<size_t>(head) * own * positions;
    values.in = positions;
    values.out = own;
    kernels_.multiply_f32(keys, query + head * own, stride, rows, scores, wide);
    for (int r = 0; r < rows; ++r) {
      float* row = scores + static_cast<size_t>(r) * wide;
      if (blind) std::fill_n(row, positions, 0.0f);
      kernels_.scale(row, 1.0f / kernels_.exponentials(row, positions), wide);
    }
    kernels_.multiply_f32(values, scores, wide, rows, out + head * own, d);
  }
}

void Network::encode(const int32_t* ids, const uint8_t* seen, int tokens, const float* prefix, int prefixes,
                     Pool& pool, std::vector<Scratch>& scratch, Memory& memory) const {
  const int d = dims_.width;
  std::vector<int32_t> kept, places;
  tokens = std::min(tokens, prompt_limit_);
  const bool any = std::any_of(seen, seen + tokens, [](uint8_t one) { return one != 0; });
  // A prompt of which nothing is seen sees everything, equally: its bias swallows the scores.
  memory.blind = !any && !prefixes;
  for (int t = 0; t < tokens; ++t) {
    if (!seen[t] && !memory.blind) continue;
    if (ids[t] < 0 || ids[t] >= vocabulary_) throw std::runtime_error("a prompt's id is outside the vocabulary");
    kept.push_back(ids[t]);
    places.push_back(t);
  }
  const int rows = prefixes + static_cast<int>(kept.size());
  memory.positions = rows;
  memory.layers.resize(dims_.layers);
  for (Packs& packs : memory.layers) size(packs, rows);
  Array<float> x, joint;  // joint: queries, keys and values of the layer
  x.resize(static_cast<size_t>(rows) * d);
  joint.resize(static_cast<size_t>(rows) * 3 * d);
  Packs own[2];  // one is read while the next layer's is written
  for (Packs& packs : own) size(packs, rows);

  const auto ask = [&](const Layer& layer, int first, int count, Packs& packs, Scratch& mine) {
    const float* y = normalised(x.data() + static_cast<size_t>(first) * d, layer.attention_norm, count, mine.y);
    float* to = joint.data() + static_cast<size_t>(first) * 3 * d;
    apply(layer.qkv, y, d, count, to, 3 * d, mine);
    pack(to + d, 3 * d, count, first, rows, packs);
  };
  // More pieces than threads: there is less to wait for when another process takes a core.
  const int pieces = std::max({1, std::min(pool.threads(), rows / 4), rows / 16});
  const auto begin = [&](int piece) { return static_cast<int>(static_cast<int64_t>(rows) * piece / pieces); };
  pool.run(pieces, [&](int piece, int thread) {
    const int first = begin(piece), last = begin(piece + 1), texts = std::max(first, prefixes);
    float* to = x.data();
    for (int r = first; r < std::min(last, prefixes); ++r)
      std::copy_n(prefix + static_cast<size_t>(r) * d, d, to + static_cast<size_t>(r) * d);
    if (texts < last)
      embed(kept.data() + texts - prefixes, places.data() + texts - prefixes, last - texts, encoder_positions_,
            encoder_input_, to + static_cast<size_t>(texts) * d);
    ask(encoder_[0], first, last - first, own[0], scratch[thread]);
  });
  for (int number = 0; number < dims_.layers; ++number) {
    pool.run(pieces, [&](int piece, int thread) {
      const int first = begin(piece), count = begin(piece + 1) - first;
      Scratch& mine = scratch[thread];
      const Layer& layer = encoder_[number];
      float* to = x.data() + static_cast<size_t>(first) * d;
      float* mixed = mine.mixed.need(static_cast<size_t>(count) * d);
      mix(own[number % 2], rows, memory.blind, joint.data() + static_cast<size_t>(first) * 3 * d, 3 * d, count,
          mixed, mine);
      float* out = mine.query.need(static_cast<size_t>(count) * d);
      apply(layer.out, mixed, d, count, out, d, mine);
      join(to, out, layer.attention_norm, count);
      feed(layer, to, count, mine);
      if (number + 1 < dims_.layers) {
        ask(encoder_[number + 1], first, count, own[(number + 1) % 2], mine);
        return;
      }
      const float* last = normalised(to, encoder_output_, count, mine.y);
      float* pair = mine.wide.need(static_cast<size_t>(count) * 2 * d);
      for (int below = 0; below < dims_.layers; ++below) {
        apply(decoder_[below].cross_kv, last, d, count, pair, 2 * d, mine);
        pack(pair, 2 * d, count, first, rows, memory.layers[below]);
      }
    });
  }
}

void Network::reserve(Paths& paths) const {
  const size_t count = paths.count(), d = dims_.width;
  paths.past.resize(dims_.layers);
  for (Array<float>& layer : paths.past) layer.resize(count * 2 * d);
  paths.states.resize(count * d);
}

void Network::decode(Paths& paths, const Memory& memory, int first, int last, Scratch& scratch) const {
  // Rows enough for a block of weights to pay for its way from memory, few enough to stay in a core's cache.
  constexpr int kMost = 96;
  if (last - first > kMost) {
    // Ancestors come first, so that any cut is right.
    decode(paths, memory, first, first + kMost, scratch);
    decode(paths, memory, first + kMost, last, scratch);
    return;
  }
  const int rows = last - first, d = dims_.width;
  if (!rows) return;
  float* x = scratch.x.need(static_cast<size_t>(rows) * d);
  embed(paths.token.data() + first, paths.depth.data() + first, rows, decoder_positions_, decoder_input_, x);
  for (int number = 0; number < dims_.layers; ++number) {
    const Layer& layer = decoder_[number];
    Array<float>& past = paths.past[number];
    const float* y = normalised(x, layer.attention_norm, rows, scratch.y);
    float* joint = scratch.wide.need(static_cast<size_t>(rows) * 3 * d);
    apply(layer.qkv, y, d, rows, joint, 3 * d, scratch);
    for (int r = 0; r < rows; ++r)
      std::copy_n(joint + static_cast<size_t>(r) * 3 * d + d, 2 * d,
                  past.data() + static_cast<size_t>(first + r) * 2 * d);
    float* mixed = scratch.mixed.need(static_cast<size_t>(rows) * d);
    for (int r = 0; r < rows; ++r) {
      scratch.past.clear();
      for (int at = first + r; at >= 0; at = paths.parent[at])
        scratch.past.push_back(past.data() + static_cast<size_t>(at) * 2 * d);
      // From the start on, as it was read.
      std::reverse(scratch.past.begin(), scratch.past.end());
      kernels_.attend(joint + static_cast<size_t>(r) * 3 * d, scratch.past.data(),
                      static_cast<int>(scratch.past.size()), dims_.heads, d, mixed + static_cast<size_t>(r) * d);
    }
    float* out = scratch.query.need(static_cast<size_t>(rows) * d);
    apply(layer.out, mixed, d, rows, out, d, scratch);
    join(x, out, layer.attention_norm, rows);

    y = normalised(x, layer.cross_norm, rows, scratch.y);
    float* query = scratch.query.need(static_cast<size_t>(rows) * d);
    apply(layer.cross_q, y, d, rows, query, d, scratch);
    mix(memory.layers[number], memory.positions, memory.blind, query, d, rows, mixed, scratch);
    apply(layer.cross_out, mixed, d, rows, query, d, scratch);
    join(x, query, layer.cross_norm, rows);

    feed(layer, x, rows, scratch);
  }
  float* states = paths.states.data() + static_cast<size_t>(first) * d;
  if (dims_.post_norm) {
    std::copy_n(x, static_cast<size_t>(rows) * d, states);
    return;
  }
  for (int r = 0; r < rows; ++r)
    kernels_.normalise(x + static_cast<size_t>(r) * d, decoder_output_.weight, decoder_output_.bias, d,
                       states + static_cast<size_t>(r) * d);
}

}  // namespace onesearch
