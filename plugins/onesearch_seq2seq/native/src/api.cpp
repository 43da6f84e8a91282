// The C interface, loaded by ctypes: plain pointers and numbers, so that it fits any version of numpy.
#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "kernels.h"
#include "network.h"
#include "pool.h"
#include "search.h"

using namespace onesearch;

namespace {

// Changes whenever a signature or a meaning below does.
constexpr int32_t kVersion = 4;

int tell(char* error, int64_t room, const char* what) {
  if (error && room > 0) {
    std::strncpy(error, what, static_cast<size_t>(room) - 1);
    error[room - 1] = 0;
  }
  return 1;
}

}  // namespace

struct Engine {
  Engine(const Tensors& tensors, const Dimensions& dims, const Kernels& kernels, int threads)
      : network(tensors, dims, kernels), pool(threads), scratch(pool.threads()) {
    for (int i = 0; i < pool.threads(); ++i) searches.emplace_back(new Search(network, pool, scratch));
  }

  Network network;
  Pool pool;
  std::vector<Scratch> scratch;
  std::vector<std::unique_ptr<Search>> searches;  // one a thread
  std::mutex mutex;
};

#pragma GCC visibility push(default)
extern "C" {

struct onesearch_dimensions {
  int32_t width, layers, hidden, heads, levels, vector, steer_rank, start, gelu, post_norm;
};

struct onesearch_tensor {
  const char* name;
  const void* data;
  int32_t type;  // 0 f32, 1 i8, 2 i32, 3 f16
  int32_t axes;
  int64_t shape[4];
};

struct onesearch_request {
  int32_t queries, tokens, prefixes, beams;
  int32_t levels;           // the network speaks at the first so many
  const int32_t* ids;       // [B, T]
  const uint8_t* seen;      // [B, T]
  const float* prefix;      // [B, P, d]
  const float* query;       // [B, D]
  const float* parts;       // [4, L] of head, steer, prior, mass
  int32_t* leaves;          // [B, K]
  float* log_probs;         // [B, K]
  float* dropped;           // [B]
  float* dropped_mass;      // [B]
  int32_t* branches;        // [B, L]
  double* seconds;          // [L + 2], may be absent: encoder, decoder step by step, all else; added to
  int64_t* rows;            // [L], may be absent: decoder rows step by step; added to
  // With first > 0: begin with so many beams, and double them (up to `beams`) until the best `certain` results
  // are proven exact. What is found stands in rows of `beams` all the same.
  int32_t first, certain;
  int32_t* widths;          // [B], may be absent: the beams that each query took
};

#ifndef ONESEARCH_BUILD
#define ONESEARCH_BUILD ""
#endif
// The fingerprint of the sources that this was built from.
const char* onesearch_build() { return ONESEARCH_BUILD; }

int32_t onesearch_version() { return kVersion; }

// Names of the instruction sets that this machine runs, separated by spaces, the plainest first.
int32_t onesearch_instructions(char* names, int64_t room) {
  const Kernels* tables[8];
  std::string all;
  for (int i = 0, count = available(tables, 8); i < count; ++i) all += (i ? " " : "") + std::string(tables[i]->name);
  tell(names, room, all.c_str());
  return static_cast<int32_t>(all.size());
}

// The arrays are borrowed: they must outlive the engine. `instructions` empty: the best there is.
int32_t onesearch_open(const onesearch_tensor* tensors, int32_t count, const onesearch_dimensions* dims,
                       int32_t threads, const char* instructions, Engine** engine, char* error, int64_t room) {
  try {
    const Kernels* kernels = choose(instructions);
    if (!kernels) return tell(error, room, (std::string("no instruction set ") + instructions + " here").c_str());
    Tensors all;
    for (int32_t i = 0; i < count; ++i) {
      const onesearch_tensor& one = tensors[i];
      all[one.name] = {static_cast<Tensor::Type>(one.type), one.data,
                       std::vector<int64_t>(one.shape, one.shape + one.axes)};
    }
    Dimensions d;
    d.width = dims->width;
    d.layers = dims->layers;
    d.hidden = dims->hidden;
    d.heads = dims->heads;
    d.levels = dims->levels;
    d.vector = dims->vector;
    d.steer_rank = dims->steer_rank;
    d.start = dims->start;
    d.gelu = dims->gelu != 0;
    d.post_norm = dims->post_norm != 0;
    *engine = new Engine(all, d, *kernels, std::max(1, threads));
    return 0;
  } catch (const std::exception& failure) {
    return tell(error, room, failure.what());
  }
}

void onesearch_close(Engine* engine) { delete engine; }

const char* onesearch_chosen(const Engine* engine) { return engine->network.kernels().name; }

// One request at a time; others wait. Queries of a batch run side by side, one a thread; a single one is shared
// out among the threads.
int32_t onesearch_search(Engine* engine, const Tree* tree, const onesearch_request* request, char* error,
                         int64_t room) {
  try {
    const std::lock_guard<std::mutex> lock(engine->mutex);
    const Pool::Awake awake(engine->pool);
    const int levels = tree->depth, d = engine->network.dims().width;
    if (levels != engine->network.dims().levels || tree->dimension != engine->network.dims().vector)
      return tell(error, room, "the tree has other levels or vectors than the network");
    const float* parts = request->parts;
    const Parts weights{parts, parts + levels, parts + 2 * levels, parts + 3 * levels};
    std::vector<Account> accounts(request->queries);
    engine->pool.run(request->queries, [&](int64_t query, int thread) {
      const onesearch_request& of = *request;
      Search& search = *engine->searches[thread];
      const Prompt prompt{of.ids + query * of.tokens, of.seen + query * of.tokens, of.tokens,
                          of.prefix + query * of.prefixes * d, of.prefixes};
      search.begin(*tree, prompt, of.query + query * tree->dimension, weights, of.levels);
      const Found found{of.leaves + query * of.beams, of.log_probs + query * of.beams, of.beams,
                        of.dropped + query, of.dropped_mass + query, of.branches + query * levels};
      int width = of.first > 0 ? std::min(of.first, of.beams) : of.beams;
      search.run(width, found);
      while (width < of.beams && !found.proven(of.certain)) {
        width = std::min(2 * width, of.beams);
        search.run(width, found);
      }
      if (of.widths) of.widths[query] = width;
      accounts[query] = search.account();
    });
    for (const Account& account : accounts) {
      if (request->seconds) {
        request->seconds[0] += account.encoder;
        for (int level = 0; level < levels; ++level) request->seconds[1 + level] += account.decoder[level];
        request->seconds[1 + levels] += account.rest;
      }
      for (int level = 0; request->rows && level < levels; ++level) request->rows[level] += account.rows[level];
    }
    return 0;
  } catch (const std::exception& failure) {
    return tell(error, room, failure.what());
  }
}

}  // extern "C"
#pragma GCC visibility pop
