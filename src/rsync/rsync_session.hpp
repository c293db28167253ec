// One target of RSync: what it is told, and what it answers. docs/rsync.md has the conversation.
//
// Messages are lists of operations; each is answered by exactly one list, so that those that are not
// answered yet are a window: neither side ever holds more of this target's data than kWindow messages.
//
// Owner: the send() that runs, on its thread. Knows nothing of channels: values in, values out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include <execnet/value.hpp>

#include "rsync/rsync_source.hpp"
#include "rsync/rsync_tree.hpp"

namespace execnet::core {

// What a session tells of; of the target, in order.
class SessionObserver {
 public:
  SessionObserver() = default;
  virtual ~SessionObserver() = default;
  SessionObserver(const SessionObserver&) = delete;
  SessionObserver& operator=(const SessionObserver&) = delete;

  // The size of all files that are different there. Before anything of them is sent.
  virtual void on_list(std::uint64_t bytes) = 0;
  // The content of that file is different, and is sent.
  virtual void on_send_file(const std::string& relative) = 0;
  // A file of that size is done.
  virtual void on_done(std::uint64_t bytes) = 0;
  // This is there, but cannot be read: the target keeps what it has of it.
  virtual void on_unreadable(std::uint32_t number) = 0;
};

// What is to become like the tree.
struct Destination {
  std::string path;            // bytes, relative to the worker's directory
  bool delete_others = false;  // what is not in the tree
  bool set_ids = false;        // whether files may run as their owner or group there, as they do here
};

class RSyncSession {
 public:
  static constexpr int kWindow = 8;                                     // messages
  static constexpr std::size_t kMessageBytes = std::size_t{256} << 10;  // of content; about

  RSyncSession(const SourceTree& tree, BlockHashes& hashes, Destination destination, SessionObserver& observer);

  // Whether there may be something to send now.
  [[nodiscard]] bool can_send() const { return in_flight_ < kWindow && phase_ != Phase::kFinished && !idle_; }
  // The next message; none if there is nothing to say before the next answer, or this was a part of
  // a longer piece of work: then can_send() is still true.
  // Throws std::system_error for a single file that cannot be read, DataFormatError if the target owes answers and will
  // never give them.
  std::optional<List> next_message();
  // Takes an answer in. Throws DataFormatError for what is none.
  void answered(const Value& answers);
  // Whether the target has everything.
  [[nodiscard]] bool finished() const { return phase_ == Phase::kFinished && in_flight_ == 0; }
  // Files that never held still, by their path: the target has kept what it had.
  [[nodiscard]] const std::vector<std::string>& unsteady() const { return unsteady_; }

 private:
  enum class Phase : std::uint8_t { kListing, kListed, kSending, kFinished };
  // Of a file, so that an answer that does not belong to anything is noticed.
  enum class State : std::uint8_t { kUnknown, kWanted, kAsked, kSent, kDone };
  // A file that the target wants, and the blocks of its own that it could be made of.
  struct Wanted {
    std::uint32_t number = 0;
    bool was_hashed = false;
    std::optional<std::uint64_t> old_size = std::nullopt;
    std::string digests;
  };
  struct Transfer {
    Wanted wanted;
    SourceFile file;
    std::uint64_t block;       // size of one
    std::uint64_t offset = 0;  // up to which the target was told, or need not be
    std::uint64_t equal = 0;   // blocks before `offset` that it has, and was not told to copy yet
    bool in_equal_block = false;
    bool opened = false;
    bool reported = false;
    int attempts = 1;
  };
  // What fits in one message, and what one message may cost in reading.
  struct Budget {
    std::size_t bytes = kMessageBytes;
    std::size_t hashing = 8 * kMessageBytes;
    [[nodiscard]] bool is_spent() const { return bytes == 0 || hashing == 0; }
    void spend(std::size_t count) { bytes -= count < bytes ? count : bytes; }
    void hash(std::size_t count) { hashing -= count < hashing ? count : hashing; }
  };

  void list_directories(List& operations, Budget& budget);
  void ask_for_hashes(List& operations, Budget& budget);
  void send_files(List& operations, Budget& budget);
  void begin_transfer(List& operations, Budget& budget);
  // None if it has vanished, or cannot be read.
  [[nodiscard]] std::optional<SourceFile> open_source(std::uint32_t number);
  // As far as the budget goes.
  void continue_transfer(List& operations, Budget& budget);
  void end_transfer(List& operations, Budget& budget);
  // The file has changed while it was read: from the beginning, or not at all.
  void restart_transfer(List& operations, Budget& budget);
  // What the target was told of the new file is void.
  Transfer abort_transfer(List& operations, Budget& budget);
  void drop_transfer(List& operations, Budget& budget, const Wanted& wanted);
  void forget(const Wanted& wanted);
  void open_new(List& operations, Budget& budget);
  void copy_equal(List& operations, Budget& budget);
  [[nodiscard]] bool is_equal_block(Budget& budget);
  [[nodiscard]] std::uint64_t blocks_of(std::uint32_t number) const;
  // The permissions that the target is to give.
  [[nodiscard]] std::uint32_t file_mode(std::uint32_t mode) const;
  [[nodiscard]] std::uint32_t directory_mode(std::uint32_t mode) const;
  [[nodiscard]] Value described(const TreeEntry& entry) const;
  void on_answer(const Value& answer);

  const SourceTree& tree_;
  BlockHashes& hashes_;
  const Destination destination_;
  SessionObserver& observer_;

  Phase phase_ = Phase::kListing;
  bool idle_ = false;  // nothing to say before the next answer
  int in_flight_ = 0;
  std::uint32_t next_directory_ = 0;
  std::uint32_t next_child_ = 0;  // of that directory

  std::uint64_t wanted_bytes_ = 0;
  std::deque<std::uint32_t> to_hash_;  // the target has a file there: it may have some of the content
  std::deque<Wanted> hashed_;          // and has said what of it; these go first, as it holds them open
  std::deque<Wanted> to_send_;         // the target has nothing of them
  std::size_t hashing_files_ = 0;      // that were asked about and are not sent yet
  std::uint64_t hashing_blocks_ = 0;
  std::optional<Transfer> transfer_;
  std::size_t unfinished_ = 0;  // wanted and not done
  std::vector<State> states_;
  std::vector<std::string> unsteady_;
};

}  // namespace execnet::core
