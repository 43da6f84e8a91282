// Aligned arrays that grow and keep their contents.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>

namespace onesearch {

template <class T>
class Array {
  static_assert(std::is_trivially_copyable<T>::value, "moved by memcpy");

 public:
  Array() = default;
  Array(Array&& other) noexcept : data_(other.data_), size_(other.size_), capacity_(other.capacity_) {
    other.data_ = nullptr;
    other.size_ = other.capacity_ = 0;
  }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  ~Array() { std::free(data_); }

  // New elements are not initialised.
  void resize(size_t size) {
    if (size > capacity_) {
      const size_t wanted = size > 2 * capacity_ ? size : 2 * capacity_;
      const size_t bytes = (wanted * sizeof(T) + 63) / 64 * 64;
      void* fresh = std::aligned_alloc(64, bytes);
      if (!fresh) throw std::bad_alloc();
      if (size_) std::memcpy(fresh, data_, size_ * sizeof(T));
      std::free(data_);
      data_ = static_cast<T*>(fresh);
      capacity_ = wanted;
    }
    size_ = size;
  }
  T* need(size_t size) {
    resize(size);
    return data_;
  }
  void clear() { size_ = 0; }
  void push_back(const T& value) {
    const T kept = value;
    resize(size_ + 1);
    data_[size_ - 1] = kept;
  }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }

 private:
  T* data_ = nullptr;
  size_t size_ = 0, capacity_ = 0;
};

}  // namespace onesearch
