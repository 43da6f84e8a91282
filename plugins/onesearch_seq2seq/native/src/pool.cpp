#include "pool.h"

#include <algorithm>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace onesearch {
namespace {

// Looks before a waiting thread sleeps: 10 to 30 µs, about what sleeping and waking cost. Longer looking would win
// little on an idle machine, and on a busy one the scheduler lets those wait who have used up their time.
constexpr int kLooks = 500;
constexpr int kMostPieces = 0xffff;

// Which thread of which pool runs a piece now; a nested `run` stays in it.
thread_local const Pool* inside = nullptr;
thread_local int inside_thread = 0;

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

int next_of(uint64_t job) { return static_cast<int>(job & 0xffff); }
int pieces_of(uint64_t job) { return static_cast<int>(job >> 16 & 0xffff); }

}  // namespace

Pool::Pool(int threads) {
  for (int thread = 1; thread < threads; ++thread) workers_.emplace_back([this, thread] { work(thread); });
}

Pool::~Pool() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closing_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

Pool::Awake::Awake(Pool& pool) : pool_(pool) {
  if (pool_.awake_++ == 0 && pool_.asleep_ > 0) {
    const std::lock_guard<std::mutex> lock(pool_.mutex_);
    pool_.wake_.notify_all();
  }
}

Pool::Awake::~Awake() { --pool_.awake_; }

bool Pool::waiting() const {
  const uint64_t job = job_;
  return next_of(job) < pieces_of(job);
}

void Pool::distribute(int pieces, Call call, void* context) {
  if (inside == this || workers_.empty() || pieces == 1) {
    const int thread = inside == this ? inside_thread : 0;
    for (int piece = 0; piece < pieces; ++piece) call(context, piece, thread);
    return;
  }
  for (int begin = 0; begin < pieces; begin += kMostPieces) {
    const int count = std::min(pieces - begin, kMostPieces);
    struct Shifted {
      Call call;
      void* context;
      int begin;
    } shifted{call, context, begin};
    call_ = [](void* of, int piece, int thread) {
      const Shifted& at = *static_cast<const Shifted*>(of);
      at.call(at.context, at.begin + piece, thread);
    };
    context_ = &shifted;
    done_ = 0;
    const uint64_t number = (job_ >> 32) + 1;
    job_ = number << 32 | static_cast<uint64_t>(count) << 16;
    if (asleep_ > 0) {
      const std::lock_guard<std::mutex> lock(mutex_);
      wake_.notify_all();
    }
    inside = this;
    inside_thread = 0;
    while (take(0)) {
    }
    inside = nullptr;
    for (int looks = 0; done_ < count && looks < kLooks; ++looks) pause();
    if (done_ < count) {
      std::unique_lock<std::mutex> lock(mutex_);
      caller_asleep_ = true;
      finished_.wait(lock, [&] { return done_ >= count; });
      caller_asleep_ = false;
    }
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }
}

bool Pool::take(int thread) {
  uint64_t job = job_;
  while (next_of(job) < pieces_of(job)) {
    if (job_.compare_exchange_weak(job, job + 1)) {
      // The job cannot end, nor change, before this piece is done.
      try {
        call_(context_, next_of(job), thread);
      } catch (...) {
        const std::lock_guard<std::mutex> lock(mutex_);
        failure_ = std::current_exception();
      }
      // Either the caller sees the last piece done, or it is seen to sleep.
      if (++done_ >= pieces_of(job) && caller_asleep_) {
        const std::lock_guard<std::mutex> lock(mutex_);
        finished_.notify_one();
      }
      return true;
    }
  }
  return false;
}

void Pool::work(int thread) {
  inside = this;
  inside_thread = thread;
  int looks = 0;
  while (!closing_) {
    if (take(thread)) {
      looks = 0;
    } else if (awake_ > 0 && looks < kLooks) {
      ++looks;
      pause();
    } else {
      std::unique_lock<std::mutex> lock(mutex_);
      ++asleep_;
      // A job published before asleep_ rose is seen here; one published after it finds a sleeper to wake.
      if (!closing_ && !waiting() && (awake_ == 0 || looks >= kLooks)) wake_.wait(lock);
      --asleep_;
      looks = 0;
    }
  }
}

}  // namespace onesearch
