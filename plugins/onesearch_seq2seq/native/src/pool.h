// A few threads that wait for pieces of work: awake while a search is under way, asleep otherwise.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace onesearch {

class Pool {
 public:
  // The caller of `run` is one of the threads.
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(piece, thread) for every piece in [0, pieces), and returns when all are done. A call from
  // within a piece runs in its own thread. Throws what a piece threw, when the others are done.
  template <class Body>
  void run(int pieces, Body&& body) {
    const auto call = [](void* context, int piece, int thread) {
      (*static_cast<typename std::remove_reference<Body>::type*>(context))(piece, thread);
    };
    distribute(pieces, call, &body);
  }

  // While one lives, waiting threads look for work for a while before they sleep.
  class Awake {
   public:
    explicit Awake(Pool& pool);
    ~Awake();

   private:
    Pool& pool_;
  };

 private:
  using Call = void (*)(void* context, int piece, int thread);

  void distribute(int pieces, Call call, void* context);
  bool take(int thread);
  void work(int thread);
  bool waiting() const;

  // Number of the job (32 bits), its pieces (16), the next one to be taken (16): one word, so that a thread
  // that comes late cannot take a piece of a job it has not seen.
  std::atomic<uint64_t> job_{0};
  std::atomic<int> done_{0}, awake_{0}, asleep_{0};
  std::atomic<bool> closing_{false}, caller_asleep_{false};
  Call call_ = nullptr;
  void* context_ = nullptr;
  std::exception_ptr failure_;
  std::mutex mutex_;
  std::condition_variable wake_, finished_;
  std::vector<std::thread> workers_;
};

}  // namespace onesearch
