#include "wire/limits.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "wire/big_endian.hpp"
#include "wire/opcode.hpp"

namespace execnet::wire {
namespace {

// Goes over a value without making it, as the decoder does, and counts.
//
// An index of a list is no item, but looks like one until it is used as an index: so what lies directly on a list is
// counted once it is known not to be one.
class Counter {
 public:
  Counter(std::string_view bytes, std::size_t start, std::size_t most) : bytes_(bytes), at_(start), most_(most) {}

  void run() {
    while (step()) {
      check();
    }
    while (!stack_.empty()) {  // no index has become of these
      pop(true);
    }
    check();
  }

 private:
  struct Slot {
    bool is_list;
    bool counted;
  };

  void check() const {
    if (count_ > most_) {
      throw LoadError("more than " + std::to_string(most_) + " items", op_at_);
    }
  }

  bool step() {
    op_at_ = at_;
    if (at_ >= bytes_.size()) {
      return false;
    }
    const auto op = static_cast<Op>(bytes_[at_++]);
    switch (op) {
      case Op::kBuildTuple:
      case Op::kSet:
      case Op::kFrozenSet: return build(op);
      case Op::kSetItem: return set_item();
      case Op::kStop: return false;
      default: {
        const auto operand = operand_of(op);
        return operand && push(op) && skip(*operand);
      }
    }
  }

  bool push(Op op) {
    const bool on_list = !stack_.empty() && stack_.back().is_list;
    stack_.push_back({op == Op::kNewList, !on_list});
    count_ += on_list ? 0 : 1;
    return true;
  }

  bool build(Op op) {
    const auto size = number<std::uint32_t>();
    if (!size || *size > stack_.size()) {
      return false;
    }
    for (std::size_t left = *size; left > 0; --left) {
      pop(true);
    }
    return push(op);
  }

  void pop(bool is_item) {
    count_ += is_item && !stack_.back().counted ? 1 : 0;
    stack_.pop_back();
  }

  bool set_item() {
    if (stack_.size() < 3) {
      return false;
    }
    pop(true);
    pop(!stack_[stack_.size() - 2].is_list);
    return true;
  }

  bool skip(std::uint64_t size) {
    if (size > bytes_.size() - at_) {
      return false;
    }
    at_ += size;
    return true;
  }

  template <typename Unsigned>
  std::optional<Unsigned> number() {
    const std::size_t begin = at_;
    return skip(sizeof(Unsigned)) ? std::optional(get_big_endian<Unsigned>(bytes_.data() + begin)) : std::nullopt;
  }

  template <typename Unsigned>
  bool skip_counted() {
    const auto size = number<Unsigned>();
    return size && skip(*size);
  }

  bool skip(const Operand& operand) {
    if (!operand.is_length) {
      return skip(operand.width);
    }
    return operand.width == 4 ? skip_counted<std::uint32_t>() : skip_counted<std::uint64_t>();
  }

  const std::string_view bytes_;
  std::size_t at_;
  std::size_t op_at_ = 0;
  const std::size_t most_;
  std::size_t count_ = 0;
  std::vector<Slot> stack_;
};

}  // namespace

void check_limits(std::string_view bytes, std::size_t start, const LoadLimits& limits) {
  if (bytes.size() > limits.max_bytes) {
    throw LoadError("more than " + std::to_string(limits.max_bytes) + " bytes", limits.max_bytes);
  }
  if (limits.max_items < bytes.size()) {  // each takes a byte
    Counter(bytes, start, limits.max_items).run();
  }
}

}  // namespace execnet::wire
