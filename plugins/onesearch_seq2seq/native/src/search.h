// The constrained beam search of one query. What it scored it keeps, so that it can go on with wider beams.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <vector>

#include "network.h"
#include "pool.h"
#include "tree.h"

namespace onesearch {

// Weights of the score's parts, f32[L] each.
struct Parts {
  const float *head, *steer, *prior, *mass;
};

struct Prompt {
  const int32_t* ids;
  const uint8_t* seen;
  int tokens;
  const float* prefix;  // f32[prefixes, d]
  int prefixes;
};

// Where a search writes what it found: leaves i32[K] and log-probabilities f32[K], best first, then -1 and
// -inf; branches i32[L].
struct Found {
  int32_t* leaves;
  float* log_probs;
  int room;  // K, at least the width of the search
  float* dropped;
  float* dropped_mass;
  int32_t* branches;

  // Whether no wider search could change the best k: nothing better was dropped, or nothing at all.
  bool proven(int k) const {
    return *dropped_mass == -std::numeric_limits<float>::infinity() ||
           (k >= 1 && k <= room && log_probs[k - 1] >= *dropped);
  }
};

// Where the time went, in seconds, and how many rows went through the decoder at each step.
struct Account {
  double encoder = 0, rest = 0;
  std::array<double, kMostLevels> decoder{};
  std::array<int64_t, kMostLevels> rows{};
};

class Search {
 public:
  Search(const Network& network, Pool& pool, std::vector<Scratch>& scratch)
      : network_(network), pool_(pool), scratch_(scratch) {}

  // Takes a query up; everything given must outlive the search. `levels` is how many the network may speak at.
  void begin(const Tree& tree, const Prompt& prompt, const float* query, const Parts& parts, int levels);
  // Searches with so many beams. Called again with more, it scores only what the wider beams add, and finds
  // what a search of that width finds.
  void run(int width, const Found& found);

  const Account& account() const { return account_; }

 private:
  // A prefix that was scored.
  struct Prefix {
    int32_t node;
    int32_t above;  // which prefix of the depth above it follows
    float score;    // log-probability
    int32_t path;   // its row in the decoder, -1: none yet
    int32_t listed, live;  // where its live children stand in the list of the next depth; listed -1: not yet
    int32_t below;  // where its children's prefixes begin at the next depth, -1: not scored
  };
  // One depth: prefixes, and the live children of the prefixes of the depth above.
  struct Depth {
    std::vector<Prefix> prefixes;
    Array<int32_t> child, code;
    Array<float> base;   // prior and mass of the child's logit
    Array<float> logit;  // with the network's part
    Array<float> guess;  // log-probability of the child by the base alone
  };
  struct Cut {
    float best;   // highest score that was dropped
    double mass;  // Σ exp(score - best)
    void add(float score, double times);
    double log_mass() const;
  };

  void list(int depth, const std::vector<int32_t>& beams);
  void expand(int depth, const std::vector<int32_t>& beams, int width, std::vector<int32_t>& pool, Cut& cut);
  void rank(int depth, std::vector<int32_t>& pool, int width, Cut& cut);
  void guide(int depth, const std::vector<int32_t>& beams);
  bool lean(int depth) const;
  bool table(int depth, const std::vector<int32_t>& beams);
  void dots(int depth, int first, int count, const float* x, const float* look_ups, Scratch& scratch,
            float* out) const;
  void add(int depth, int first, int count, const float* look_ups, float* out) const;
  const float* look_up(int depth, int live, const float* x, Array<float>& room) const;
  void listen(int depth, const std::vector<int32_t>& beams);
  void settle(int depth, int32_t beam, const float* logits);
  float normaliser(const float* logits, int count);
  template <class Body>
  void share(int depth, const std::vector<int32_t>& beams, Body&& body);
  int32_t path_of(int depth, int32_t prefix);
  void follow(int depth, const std::vector<int32_t>& beams);
  bool speaks(int depth) const;
  bool joint(int depth) const;
  float bar(const std::vector<int32_t>& beams, int depth, int width, bool guesses);

  const Network& network_;
  Pool& pool_;
  std::vector<Scratch>& scratch_;

  const Tree* tree_ = nullptr;
  Prompt prompt_{};
  Parts parts_{};
  int speaking_ = 0;
  bool encoded_ = false;
  Array<float> query_;    // padded with zeros
  Array<float> by_code_;   // what the query says of each code of a level
  Array<float> look_ups_;  // and of each byte of its remainders
  Memory memory_;
  Paths paths_;
  std::vector<Depth> depths_;
  Array<float> steer_, head_, values_;
  std::vector<std::pair<uint64_t, int32_t>> keys_;
  Account account_;
};

}  // namespace onesearch
