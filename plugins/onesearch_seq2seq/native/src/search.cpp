#include "search.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>

#include "half.h"

namespace onesearch {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();
constexpr uint16_t kDead = 0xfc00;  // -inf as a half: nothing alive below
// Children a piece of work scores at least, so that handing it to a thread pays.
constexpr int kPiece = 64;
// Rows that go through the decoder together when nothing says how many are needed.
constexpr int kStep = 12;
// Rows that are worth a thread of their own.
constexpr int kFewest = 4;
// Children of one prefix from which it pays to ask first what a direction says of each byte of a remainder.
constexpr int kLookUp = 64;
// Rows of a piece of work where there are many: the smaller, the less there is to wait for when another process
// takes a core, but the more often the weights are read.
constexpr int kPart = 32;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Ascending keys: higher scores first, of equal ones the lower node.
uint64_t key_of(float score, int32_t node) {
  score += 0.0f;  // -0 equals 0
  uint32_t bits;
  std::memcpy(&bits, &score, 4);
  bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(~bits) << 32 | static_cast<uint32_t>(node);
}

}  // namespace

void Search::Cut::add(float score, double times) {
  if (score > best) {
    mass = mass * std::exp(static_cast<double>(best) - score) + times;
    best = score;
  } else {
    mass += times * std::exp(static_cast<double>(score) - best);
  }
}

double Search::Cut::log_mass() const { return mass > 0 ? best + std::log(mass) : kNone; }

void Search::begin(const Tree& tree, const Prompt& prompt, const float* query, const Parts& parts, int levels) {
  tree_ = &tree;
  prompt_ = prompt;
  parts_ = parts;
  account_ = Account();
  encoded_ = false;
  paths_.clear();
  const int wide = padded(tree.dimension);
  std::fill_n(query_.need(wide), wide, 0.0f);
  std::copy_n(query, tree.dimension, query_.data());
  speaking_ = 0;
  for (int level = 0; level < std::min<int>(levels, tree.depth); ++level)
    if (parts.head[level] != 0 || (parts.steer[level] != 0 && network_.dims().steer_rank)) speaking_ = level + 1;
  depths_.resize(tree.depth + 1);
  for (Depth& depth : depths_) {
    depth.prefixes.clear();
    for (auto* list : {&depth.child, &depth.code}) list->clear();
    for (auto* list : {&depth.base, &depth.logit, &depth.guess}) list->clear();
  }
  depths_[0].prefixes.push_back({0, -1, 0.0f, -1, -1, 0, -1});
}

// Whether the network has a say about the children of prefixes of this depth.
bool Search::speaks(int depth) const {
  return depth < speaking_ &&
         (parts_.head[depth] != 0 || (parts_.steer[depth] != 0 && network_.dims().steer_rank));
}

bool Search::joint(int depth) const { return depth == 0 && speaks(0); }

void Search::run(int width, const Found& found) {
  const Pool::Awake awake(pool_);
  const double start = now();
  const double before = account_.encoder + [&] {
    double sum = 0;
    for (const double part : account_.decoder) sum += part;
    return sum;
  }();
  std::vector<int32_t> beams{0}, pool;
  Cut all{kNone, 0};
  for (int depth = 0; depth < tree_->depth; ++depth) {
    pool.clear();
    int branches = 0;
    list(depth, beams);
    for (const int32_t beam : beams) branches += depths_[depth].prefixes[beam].live;
    found.branches[depth] = branches;
    expand(depth, beams, width, pool, all);
    rank(depth + 1, pool, width, all);
    beams = pool;
  }
  const std::vector<Prefix>& leaves = depths_[tree_->depth].prefixes;
  for (int k = 0; k < found.room; ++k) {
    const bool real = k < static_cast<int>(beams.size());
    found.leaves[k] = real ? leaves[beams[k]].node : -1;
    found.log_probs[k] = real ? leaves[beams[k]].score : kNone;
  }
  *found.dropped = all.best;
  *found.dropped_mass = static_cast<float>(all.log_mass());
  double after = account_.encoder;
  for (const double part : account_.decoder) after += part;
  account_.rest += now() - start - (after - before);
}

// The live children of prefixes that have none listed yet.
void Search::list(int depth, const std::vector<int32_t>& beams) {
  Depth& below = depths_[depth + 1];
  const int32_t* first = tree_->first_child[depth];
  const uint16_t* mass = tree_->log_mass[depth];
  size_t listed = below.child.size(), most = listed;
  for (const int32_t beam : beams) {
    const Prefix& prefix = depths_[depth].prefixes[beam];
    if (prefix.listed < 0) most += first[prefix.node + 1] - first[prefix.node];
  }
  below.child.resize(most);
  below.code.resize(most);
  // Each child is written; the next one takes the place of one that is dead.
  const auto all = [&](const auto* codes) {
    for (const int32_t beam : beams) {
      Prefix& prefix = depths_[depth].prefixes[beam];
      if (prefix.listed >= 0) continue;
      prefix.listed = static_cast<int32_t>(listed);
      for (int32_t child = first[prefix.node]; child < first[prefix.node + 1]; ++child) {
        below.child[listed] = child;
        below.code[listed] = static_cast<int32_t>(codes[child]);
        listed += mass[child] != kDead;
      }
      prefix.live = static_cast<int32_t>(listed) - prefix.listed;
    }
  };
  switch (tree_->code_bytes[depth]) {
    case 1: all(static_cast<const uint8_t*>(tree_->code[depth])); break;
    case 2: all(static_cast<const uint16_t*>(tree_->code[depth])); break;
    default: all(static_cast<const uint32_t*>(tree_->code[depth]));
  }
  below.child.resize(listed);
  below.code.resize(listed);
  below.base.resize(below.child.size());
  below.logit.resize(below.child.size());
  below.guess.resize(below.child.size());
}

// Scores what can reach the best `width` children of the beams, whose prefixes then are the pool. A beam whose
// own score is below the (width + 1)-th best child can neither be followed nor hold the best dropped one, since
// log-probabilities only fall along a path: its children are dropped together, with exactly its own mass.
void Search::expand(int depth, const std::vector<int32_t>& beams, int width, std::vector<int32_t>& pool, Cut& cut) {
  std::vector<Prefix>& prefixes = depths_[depth].prefixes;
  std::vector<int32_t> open;  // best first, as the beams are
  for (const int32_t beam : beams) {
    Prefix& prefix = prefixes[beam];
    if (prefix.below >= 0) continue;
    if (prefix.live == 1)
      settle(depth, beam, nullptr);  // an only child has all of the probability
    else if (prefix.live > 1)
      open.push_back(beam);
  }
  guide(depth, open);
  if (!speaks(depth)) {
    for (const int32_t beam : open) settle(depth, beam, depths_[depth + 1].base.data() + prefixes[beam].listed);
  } else {
    size_t done = 0;
    while (done < open.size()) {
      const float sure = bar(beams, depth, width, false);
      if (prefixes[open[done]].score < sure) break;
      const float wanted = open.size() > kStep ? std::max(sure, bar(beams, depth, width, true)) : sure;
      size_t next = done;
      while (next < open.size() && prefixes[open[next]].score >= wanted) ++next;
      if (next == done) next = std::min(done + kStep, open.size());
      listen(depth, {open.begin() + done, open.begin() + next});
      done = next;
    }
  }
  for (const int32_t beam : beams) {
    const Prefix& prefix = prefixes[beam];
    for (int32_t child = 0; prefix.below >= 0 && child < prefix.live; ++child) pool.push_back(prefix.below + child);
    if (prefix.below < 0 && prefix.live) cut.add(prefix.score, 1);
  }
}

// The score of the (width + 1)-th best child that is known, or known and guessed; -inf where there are fewer.
float Search::bar(const std::vector<int32_t>& beams, int depth, int width, bool guesses) {
  const Depth& below = depths_[depth + 1];
  values_.clear();
  for (const int32_t beam : beams) {
    const Prefix& prefix = depths_[depth].prefixes[beam];
    const size_t at = values_.size();
    if (prefix.below >= 0) {
      values_.resize(at + prefix.live);
      for (int32_t child = 0; child < prefix.live; ++child)
        values_[at + child] = below.prefixes[prefix.below + child].score;
    } else if (guesses) {
      values_.resize(at + prefix.live);
      std::copy_n(below.guess.data() + prefix.listed, prefix.live, values_.data() + at);
    }
  }
  if (values_.size() <= static_cast<size_t>(width)) return kNone;
  std::nth_element(values_.begin(), values_.begin() + width, values_.end(), std::greater<float>());
  return values_[width];
}

// The best `width` of the pool, best first; the others are dropped.
void Search::rank(int depth, std::vector<int32_t>& pool, int width, Cut& cut) {
  const std::vector<Prefix>& prefixes = depths_[depth].prefixes;
  keys_.clear();
  for (const int32_t prefix : pool) keys_.emplace_back(key_of(prefixes[prefix].score, prefixes[prefix].node), prefix);
  const size_t kept = std::min(keys_.size(), static_cast<size_t>(width));
  if (kept < keys_.size()) {
    std::nth_element(keys_.begin(), keys_.begin() + kept, keys_.end());
    const int rest = static_cast<int>(keys_.size() - kept);
    float* scores = values_.need(padded(rest));
    float best = kNone;
    for (int i = 0; i < rest; ++i) {
      scores[i] = prefixes[keys_[kept + i].second].score;
      best = std::max(best, scores[i]);
    }
    cut.add(best, network_.kernels().exponentials(scores, rest));
  }
  std::sort(keys_.begin(), keys_.begin() + kept);
  pool.resize(kept);
  for (size_t i = 0; i < kept; ++i) pool[i] = keys_[i].second;
}

// Log-probabilities of a beam's children from their logits (nullptr: there is one child).
void Search::settle(int depth, int32_t beam, const float* logits) {
  Prefix& prefix = depths_[depth].prefixes[beam];
  Depth& below = depths_[depth + 1];
  prefix.below = static_cast<int32_t>(below.prefixes.size());
  const float shift = logits ? normaliser(logits, prefix.live) : 0;
  for (int32_t child = 0; child < prefix.live; ++child) {
    const float score = logits ? prefix.score + (logits[child] - shift) : prefix.score;
    below.prefixes.push_back({below.child[prefix.listed + child], beam, std::min(score, prefix.score), -1, -1, 0, -1});
  }
}

// log Σ exp
float Search::normaliser(const float* logits, int count) {
  float* values = values_.need(padded(count));
  std::copy_n(logits, count, values);
  const float highest = *std::max_element(logits, logits + count);
  return highest + std::log(network_.kernels().exponentials(values, count));
}

// Calls body(beam, first, count, thread) for pieces of the lists of the beams' live children.
template <class Body>
void Search::share(int depth, const std::vector<int32_t>& beams, Body&& body) {
  struct Segment {
    int beam, first, count;
  };
  std::vector<Segment> segments;
  std::vector<int> starts;
  int64_t total = 0;
  for (const int32_t beam : beams) total += depths_[depth].prefixes[beam].live;
  const int64_t share = std::max<int64_t>(kPiece, total / (4 * pool_.threads()) + 1);
  int64_t held = share;
  for (size_t i = 0; i < beams.size(); ++i) {
    const Prefix& prefix = depths_[depth].prefixes[beams[i]];
    for (int at = 0; at < prefix.live;) {
      if (held >= share) {
        starts.push_back(static_cast<int>(segments.size()));
        held = 0;
      }
      const int count = static_cast<int>(std::min<int64_t>(prefix.live - at, share - held));
      segments.push_back({static_cast<int>(i), prefix.listed + at, count});
      held += count;
      at += count;
    }
  }
  starts.push_back(static_cast<int>(segments.size()));
  pool_.run(static_cast<int>(starts.size()) - 1, [&](int piece, int thread) {
    for (int at = starts[piece]; at < starts[piece + 1]; ++at)
      body(segments[at].beam, segments[at].first, segments[at].count, scratch_[thread]);
  });
}

// Whether the children of a depth's prefixes have remainders.
bool Search::lean(int depth) const { return tree_->remainders && tree_->remainders[depth].book; }

// What x says of each byte of the remainders of a depth, where a prefix has so many live children that it pays;
// nullptr: it does not. It hangs on the prefix alone, so that a score is the same for any number of threads.
const float* Search::look_up(int depth, int live, const float* x, Array<float>& room) const {
  if (!lean(depth) || live < kLookUp) return nullptr;
  const Remainders& left = tree_->remainders[depth];
  float* found = room.need(static_cast<size_t>(left.bytes) * kEntries);
  network_.kernels().look_ups(left.columns, left.wide, x, tree_->dimension, found);
  return found;
}

// Adds what was looked up of the remainders of some of the listed children of a prefix.
void Search::add(int depth, int first, int count, const float* look_ups, float* out) const {
  const Remainders& left = tree_->remainders[depth];
  const int32_t* child = depths_[depth + 1].child.data() + first;
  const uint8_t* start = left.of(child[0]);
  if (!start) return;  // an only child
  constexpr int kSums = 8;  // side by side, so that no sum waits for the one before
  for (int i = 0; i < count; ++i) {
    const uint8_t* codes = start + static_cast<int64_t>(child[i] - child[0]) * left.bytes;  // siblings are neighbours
    float sums[kSums] = {};
    const float* of = look_ups;
    int at = 0;
    for (; at + kSums <= left.bytes; at += kSums, of += kSums * kEntries)
      for (int k = 0; k < kSums; ++k) sums[k] += of[k * kEntries + codes[at + k]];
    for (int k = 0; at + k < left.bytes; ++k) sums[k] += of[k * kEntries + codes[at + k]];
    out[i] += ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
  }
}

// ⟨vector, x⟩ of some of the listed children of a prefix, with what was looked up of their remainders if it was.
void Search::dots(int depth, int first, int count, const float* x, const float* look_ups, Scratch& scratch,
                  float* out) const {
  const Kernels& kernels = network_.kernels();
  const Depth& below = depths_[depth + 1];
  const int32_t* child = below.child.data() + first;
  const int32_t* row = tree_->by_code ? below.code.data() + first : child;
  const int dimension = tree_->dimension;
  // Siblings are neighbours, and so are their remainders; an only child has none.
  const uint8_t* start = lean(depth) && !look_ups ? tree_->remainders[depth].of(child[0]) : nullptr;
  if (!start) {
    kernels.dots_f16(tree_->vectors[depth], dimension, row, count, x, dimension, out);
    if (look_ups) add(depth, first, count, look_ups, out);
    return;
  }
  const Remainders& left = tree_->remainders[depth];
  const uint8_t** remainders = scratch.remainders.need(count);
  for (int i = 0; i < count; ++i) remainders[i] = start + static_cast<int64_t>(child[i] - child[0]) * left.bytes;
  kernels.dots_coded(tree_->vectors[depth], dimension, row, remainders, left.book, left.wide, count, x, dimension, out);
}

// Where the children are more than the codes, the query meets each code once. Whether it did.
bool Search::table(int depth, const std::vector<int32_t>& beams) {
  const int codes = network_.heads()[depth].codes;
  int64_t children = 0;
  for (const int32_t beam : beams) children += depths_[depth].prefixes[beam].live;
  if (children <= codes) return false;
  std::vector<int32_t> all(codes);
  std::iota(all.begin(), all.end(), 0);
  by_code_.resize(codes);
  network_.kernels().dots_f16(tree_->vectors[depth], tree_->dimension, all.data(), codes, query_.data(),
                              tree_->dimension, by_code_.data());
  return true;
}

// What is known of the children without the network: prior and mass.
void Search::guide(int depth, const std::vector<int32_t>& beams) {
  if (beams.empty()) return;
  Depth& below = depths_[depth + 1];
  // All roots are scored anyway, and nothing need be guessed: there the prior goes along with the steering.
  const float prior = joint(depth) ? 0 : parts_.prior[depth], weight = parts_.mass[depth];
  const uint16_t* mass = tree_->log_mass[depth];
  int most = 0;
  for (const int32_t beam : beams) most = std::max(most, depths_[depth].prefixes[beam].live);
  const float* asked = prior != 0 ? look_up(depth, most, query_.data(), look_ups_) : nullptr;
  const bool tabled = prior != 0 && tree_->by_code && (asked || !lean(depth)) && table(depth, beams);
  share(depth, beams, [&](int beam, int first, int count, Scratch& scratch) {
    float* base = below.base.data() + first;
    const int32_t *child = below.child.data() + first, *code = below.code.data() + first;
    float* masses = scratch.masses.need(count);
    if (child[count - 1] - child[0] == count - 1)  // neighbours, none of them dead
      network_.kernels().widen(mass + child[0], count, masses);
    else
      for (int i = 0; i < count; ++i) masses[i] = from_half(mass[child[i]]);
    if (prior != 0) {
      float* towards = scratch.part.need(count);
      const float* own = depths_[depth].prefixes[beams[beam]].live < kLookUp ? nullptr : asked;
      if (tabled && (own || !lean(depth))) {
        for (int i = 0; i < count; ++i) towards[i] = by_code_[code[i]];
        if (own) add(depth, first, count, own, towards);
      } else {
        dots(depth, first, count, query_.data(), own, scratch, towards);
      }
      for (int i = 0; i < count; ++i) base[i] = prior * towards[i] + weight * masses[i];
    } else {
      for (int i = 0; i < count; ++i) base[i] = weight * masses[i];
    }
  });
  if (!speaks(depth) || beams.size() <= kStep) return;
  for (const int32_t beam : beams) {
    const Prefix& prefix = depths_[depth].prefixes[beam];
    const float* base = below.base.data() + prefix.listed;
    const float shift = normaliser(base, prefix.live);
    for (int i = 0; i < prefix.live; ++i) below.guess[prefix.listed + i] = prefix.score + (base[i] - shift);
  }
}

int32_t Search::path_of(int depth, int32_t at) {
  Prefix& prefix = depths_[depth].prefixes[at];
  if (prefix.path < 0) {
    const int32_t above = depth ? path_of(depth - 1, prefix.above) : -1;
    const int32_t token =
        depth ? network_.offset(depth - 1) + tree_->code_of(depth - 1, prefix.node) : network_.dims().start;
    prefix.path = paths_.append(above, token, depth);
  }
  return prefix.path;
}

// Takes prefixes through the decoder, and what of their ancestors was not needed before.
void Search::follow(int depth, const std::vector<int32_t>& beams) {
  const double start = now();
  if (!encoded_) {
    network_.encode(prompt_.ids, prompt_.seen, prompt_.tokens, prompt_.prefix, prompt_.prefixes, pool_, scratch_,
                    memory_);
    encoded_ = true;
    account_.encoder += now() - start;
  }
  const double encoded = now();
  if (depths_[0].prefixes[0].path < 0) {  // everyone's ancestor
    path_of(0, 0);
    network_.reserve(paths_);
    pool_.run(1, [&](int, int thread) { network_.decode(paths_, memory_, 0, 1, scratch_[thread]); });
    ++account_.rows[0];
  }
  // In the order of their nodes those that share an ancestor are neighbours, and go to the same thread.
  std::vector<int32_t> sorted(beams);
  const std::vector<Prefix>& prefixes = depths_[depth].prefixes;
  std::sort(sorted.begin(), sorted.end(), [&](int32_t a, int32_t b) { return prefixes[a].node < prefixes[b].node; });
  const int first = paths_.count();
  std::vector<int> groups;
  for (const int32_t beam : sorted) {
    const int before = paths_.count();
    path_of(depth, beam);
    if (paths_.count() > before && paths_.parent[before] < first) groups.push_back(before);
  }
  const int rows = paths_.count() - first;
  if (rows) {
    network_.reserve(paths_);
    const int wanted_pieces = std::max(std::min(pool_.threads(), (rows + kFewest - 1) / kFewest), rows / kPart);
    const int pieces = std::min<int>(wanted_pieces, groups.size());
    const auto begin = [&](int piece) {  // the group that starts nearest to an equal share
      if (piece == pieces) return paths_.count();
      const int wanted = first + static_cast<int>(static_cast<int64_t>(rows) * piece / pieces);
      return piece ? *std::min_element(groups.begin(), groups.end(), [&](int a, int b) {
        return std::abs(a - wanted) < std::abs(b - wanted);
      }) : first;
    };
    pool_.run(pieces, [&](int piece, int thread) {
      network_.decode(paths_, memory_, begin(piece), begin(piece + 1), scratch_[thread]);
    });
    account_.rows[depth] += rows;
  }
  account_.decoder[depth] += now() - encoded;
}

// Hears what the network says about the children of beams, and settles them.
void Search::listen(int depth, const std::vector<int32_t>& beams) {
  follow(depth, beams);
  const Kernels& kernels = network_.kernels();
  const Head& head = network_.heads()[depth];
  const int count = static_cast<int>(beams.size()), d = network_.dims().width, wide = padded(tree_->dimension);
  const float loud = parts_.head[depth], steered = network_.dims().steer_rank ? parts_.steer[depth] : 0;
  const float prior = joint(depth) ? parts_.prior[depth] : 0;
  float* heads = head_.need(static_cast<size_t>(count) * head.stride);
  float* steers = steer_.need(static_cast<size_t>(count) * wide);
  const int pieces = std::max(1, std::min(4 * pool_.threads(), count / kFewest));
  pool_.run(pieces, [&](int piece, int thread) {
    Scratch& scratch = scratch_[thread];
    const int first = count * piece / pieces, rows = count * (piece + 1) / pieces - first;
    float* states = scratch.x.need(static_cast<size_t>(rows) * d);
    for (int r = 0; r < rows; ++r)
      std::copy_n(paths_.states.data() +
                      static_cast<size_t>(depths_[depth].prefixes[beams[first + r]].path) * d,
                  d, states + static_cast<size_t>(r) * d);
    float* to = heads + static_cast<size_t>(first) * head.stride;
    if (head.down.in)
      kernels.multiply_f32(head.down, states, d, rows, to, head.stride);
    else
      std::copy_n(states, static_cast<size_t>(rows) * d, to);
    float* pointing = steers + static_cast<size_t>(first) * wide;
    if (steered == 0) {
      std::fill_n(pointing, static_cast<size_t>(rows) * wide, 0.0f);
    } else {
      float* narrow = scratch.y.need(static_cast<size_t>(rows) * head.steer.out);
      kernels.multiply_f32(head.steer, states, d, rows, narrow, head.steer.out);
      kernels.scale(narrow, steered, rows * head.steer.out);
      kernels.multiply_f32(network_.keys(), narrow, head.steer.out, rows, pointing, wide);
    }
    for (int i = 0; prior != 0 && i < rows * wide; ++i) pointing[i] += prior * query_[i % wide];
  });
  Depth& below = depths_[depth + 1];
  share(depth, beams, [&](int beam, int first, int many, Scratch& scratch) {
    float* logit = below.logit.data() + first;
    float* part = scratch.part.need(many);
    std::copy_n(below.base.data() + first, many, logit);
    if (loud != 0) {
      const int32_t* code = below.code.data() + first;
      const float* in = heads + static_cast<size_t>(beam) * head.stride;
      if (head.halves)
        kernels.dots_f16(head.halves, head.stride, code, many, in, head.stride, part);
      else
        kernels.dots_f32(head.rows, head.stride, code, many, in, head.stride, part);
      for (int i = 0; i < many; ++i) logit[i] += loud * (part[i] + head.bias[code[i]]);
    }
    if (steered != 0 || prior != 0) {
      const float* pointing = steers + static_cast<size_t>(beam) * wide;
      const int live = depths_[depth].prefixes[beams[beam]].live;
      dots(depth, first, many, pointing, look_up(depth, live, pointing, scratch.look_ups), scratch, part);
      for (int i = 0; i < many; ++i) logit[i] += part[i];
    }
  });
  for (const int32_t beam : beams)
    settle(depth, beam, below.logit.data() + depths_[depth].prefixes[beam].listed);
}

}  // namespace onesearch
