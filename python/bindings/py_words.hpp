// The words of one input: short strings that come again and again, keys of records above all. One str for all of them
// saves the time to make and to hash it, and the memory.
//
// THREAD: needs the GIL, for destruction too.
#pragma once

#include <Python.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "py_ref.hpp"

namespace execnet::python {

class Words {
 public:
  explicit Words(std::size_t input_size) : words_(input_size < kWorthIt ? 0 : kWords) {}

  // The str of these bytes of the input, which stay where they are for as long as this lives: the one that
  // make(utf8) has made before, if it is still known.
  template <typename Make>
  PyRef get(std::string_view utf8, Make&& make) {
    if (words_.empty() || utf8.empty() || utf8.size() > kLongest) {
      return make(utf8);
    }
    const Ends ends(utf8);
    Word& word = words_[ends.spread(utf8.size()) % kWords];
    if (word.utf8.size() != utf8.size() || Ends(word.utf8) != ends || !has_same_middle(word.utf8, utf8)) {
      word.text = make(utf8);
      word.utf8 = utf8;
    }
    return PyRef::borrow(word.text.get());
  }

 private:
  static constexpr std::size_t kWords = 128;
  static constexpr std::size_t kLongest = 32;
  static constexpr std::size_t kWorthIt = 512;  // bytes: in a small message little comes twice

  struct Word {
    std::string_view utf8;
    PyRef text;
  };

  // The first and the last bytes of a string that is not empty, as numbers. Up to 16 bytes they are, with its size,
  // all there is to it.
  struct Ends {
    explicit Ends(std::string_view text) {
      if (text.size() >= sizeof(std::uint64_t)) {
        set<std::uint64_t>(text.data(), text.size());
      } else if (text.size() >= sizeof(std::uint32_t)) {
        set<std::uint32_t>(text.data(), text.size());
      } else if (text.size() >= sizeof(std::uint16_t)) {
        set<std::uint16_t>(text.data(), text.size());
      } else {
        set<std::uint8_t>(text.data(), text.size());
      }
    }
    bool operator==(const Ends&) const = default;

    // Another number for most strings: multiplied by the golden ratio, so that all bits count.
    [[nodiscard]] std::size_t spread(std::size_t size) const {
      constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15;
      return static_cast<std::size_t>((((first + size) * kGolden ^ last) * kGolden) >> 32);
    }

    template <typename Part>
    void set(const char* text, std::size_t size) {
      Part part;
      std::memcpy(&part, text, sizeof part);
      first = part;
      std::memcpy(&part, text + size - sizeof part, sizeof part);
      last = part;
    }

    std::uint64_t first;
    std::uint64_t last;
  };

  // Whether they are alike between their ends. REQUIRES: they are of one size.
  static bool has_same_middle(std::string_view one, std::string_view other) {
    constexpr std::size_t kEnd = sizeof(std::uint64_t);
    return one.size() <= 2 * kEnd || std::memcmp(one.data() + kEnd, other.data() + kEnd, one.size() - 2 * kEnd) == 0;
  }

  std::vector<Word> words_;
};

}  // namespace execnet::python
