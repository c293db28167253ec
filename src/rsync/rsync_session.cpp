#include "rsync/rsync_session.hpp"

#include <algorithm>
#include <execnet/error.hpp>
#include <utility>

namespace execnet::core {
namespace {

constexpr std::size_t kMostHashingFiles = 64;  // the target holds each open
constexpr std::uint64_t kMostHashingBlocks = 2 * kMostBlocks;
constexpr int kMostAttempts = 3;
constexpr std::size_t kOperationBytes = 64;  // of one without content, about
constexpr std::size_t kDigestBytes = sizeof(Digest);

Value signed_value(std::uint64_t number) { return Value(static_cast<std::int64_t>(number)); }

}  // namespace

RSyncSession::RSyncSession(const SourceTree& tree, BlockHashes& hashes, Destination destination,
                           SessionObserver& observer)
    : tree_(tree), hashes_(hashes), destination_(std::move(destination)), observer_(observer), states_(tree.size()) {}

// --- What it is told ---------------------------------------------------------------------------------

std::optional<List> RSyncSession::next_message() {
  List operations;
  Budget budget;
  if (phase_ == Phase::kListing) {
    list_directories(operations, budget);
  } else if (phase_ == Phase::kSending) {
    ask_for_hashes(operations, budget);
    send_files(operations, budget);
    if (unfinished_ == 0) {
      operations.emplace_back(Tuple{"finish"});
      phase_ = Phase::kFinished;
    }
  }
  if (operations.empty()) {
    idle_ = !budget.is_spent();
    if (idle_ && in_flight_ == 0) {
      throw DataFormatError("everything was answered, but of " + std::to_string(unfinished_) +
                            " files that were asked for it was not said that they are done");
    }
    return std::nullopt;
  }
  ++in_flight_;
  return operations;
}

void RSyncSession::list_directories(List& operations, Budget& budget) {
  const TreeEntry& root = tree_[0];
  if (next_directory_ == 0 && next_child_ == 0) {
    const bool is_directory = root.kind == TreeEntry::Kind::kDirectory;
    operations.emplace_back(Tuple{"root", Bytes(destination_.path), destination_.delete_others,
                                  is_directory ? "directory" : "file",
                                  is_directory ? directory_mode(root.mode) : file_mode(root.mode),
                                  signed_value(root.size), root.mtime, destination_.set_ids});
    budget.spend(kOperationBytes + destination_.path.size());
  }
  for (; next_directory_ < tree_.size(); ++next_directory_) {
    const TreeEntry& directory = tree_[next_directory_];
    if (directory.kind != TreeEntry::Kind::kDirectory || directory.unreadable) {
      continue;  // what the target has in an unreadable one stays
    }
    List children;
    while (next_child_ < directory.children && !budget.is_spent()) {
      const TreeEntry& child = tree_[directory.first_child + next_child_++];
      budget.spend(kOperationBytes + child.name.size() + child.link.size());
      children.push_back(described(child));
    }
    const bool complete = next_child_ == directory.children;
    operations.emplace_back(Tuple{"list", next_directory_, std::move(children), complete});
    budget.spend(kOperationBytes);
    if (!complete) {
      return;
    }
    next_child_ = 0;
    if (budget.is_spent()) {
      ++next_directory_;
      return;
    }
  }
  phase_ = Phase::kListed;
}

void RSyncSession::ask_for_hashes(List& operations, Budget& budget) {
  while (!to_hash_.empty() && !budget.is_spent() && hashing_files_ < kMostHashingFiles &&
         hashing_blocks_ < kMostHashingBlocks) {
    const std::uint32_t number = to_hash_.front();
    to_hash_.pop_front();
    states_[number] = State::kAsked;
    ++hashing_files_;
    hashing_blocks_ += blocks_of(number);
    operations.emplace_back(Tuple{"hash", number});
    budget.spend(kOperationBytes);
  }
}

void RSyncSession::send_files(List& operations, Budget& budget) {
  while (!budget.is_spent() && (transfer_ || !hashed_.empty() || !to_send_.empty())) {
    if (!transfer_) {
      begin_transfer(operations, budget);
    }
    if (!transfer_) {
      continue;
    }
    try {
      continue_transfer(operations, budget);
    } catch (const Unreadable&) {
      const std::uint32_t number = transfer_->wanted.number;
      if (number == 0) {
        throw;
      }
      observer_.on_unreadable(number);
      drop_transfer(operations, budget, abort_transfer(operations, budget).wanted);
    }
  }
}

void RSyncSession::begin_transfer(List& operations, Budget& budget) {
  std::deque<Wanted>& files = hashed_.empty() ? to_send_ : hashed_;
  Wanted wanted = std::move(files.front());
  files.pop_front();
  auto file = open_source(wanted.number);
  if (!file) {
    drop_transfer(operations, budget, wanted);
    return;
  }
  const std::uint64_t block = block_size(tree_[wanted.number].size);
  transfer_.emplace(Transfer{.wanted = std::move(wanted), .file = std::move(*file), .block = block});
}

std::optional<SourceFile> RSyncSession::open_source(std::uint32_t number) {
  if (tree_[number].unreadable) {  // that was told before
    return std::nullopt;
  }
  try {
    return SourceFile::open(tree_, number);
  } catch (const Unreadable&) {
    if (number == 0) {
      throw;
    }
  }
  observer_.on_unreadable(number);
  return std::nullopt;
}

void RSyncSession::continue_transfer(List& operations, Budget& budget) {
  Transfer& transfer = *transfer_;
  const std::uint64_t size = transfer.file.size();
  while (transfer.offset < size) {
    if (budget.is_spent()) {
      return;
    }
    if (transfer.offset % transfer.block == 0) {
      transfer.in_equal_block = is_equal_block(budget);
    }
    const std::uint64_t block_end = std::min((transfer.offset / transfer.block + 1) * transfer.block, size);
    if (transfer.in_equal_block) {
      ++transfer.equal;
      transfer.offset = block_end;
      continue;
    }
    open_new(operations, budget);
    copy_equal(operations, budget);
    std::string content(std::min<std::uint64_t>(kMessageBytes, block_end - transfer.offset), '\0');
    if (transfer.file.read(transfer.offset, content) < content.size()) {
      restart_transfer(operations, budget);
      return;
    }
    transfer.offset += content.size();
    budget.spend(kOperationBytes + content.size());
    operations.emplace_back(Tuple{"data", transfer.wanted.number, Bytes(std::move(content))});
  }
  end_transfer(operations, budget);
}

void RSyncSession::end_transfer(List& operations, Budget& budget) {
  Transfer& transfer = *transfer_;
  const std::uint32_t number = transfer.wanted.number;
  if (!transfer.file.is_unchanged()) {
    restart_transfer(operations, budget);
    return;
  }
  if (!transfer.opened && transfer.wanted.old_size == transfer.file.size()) {
    operations.emplace_back(Tuple{"keep", number, file_mode(transfer.file.mode()), transfer.file.mtime()});
  } else {
    open_new(operations, budget);
    copy_equal(operations, budget);
    operations.emplace_back(Tuple{"close", number});
  }
  budget.spend(kOperationBytes);
  forget(transfer.wanted);
  transfer_.reset();
}

void RSyncSession::restart_transfer(List& operations, Budget& budget) {
  const Transfer old = abort_transfer(operations, budget);
  std::optional<SourceFile> file;
  if (old.attempts == kMostAttempts) {
    unsteady_.push_back(tree_.path(old.wanted.number));
  } else {
    file = open_source(old.wanted.number);
  }
  if (!file) {
    drop_transfer(operations, budget, old.wanted);
    return;
  }
  transfer_.emplace(Transfer{.wanted = old.wanted,
                             .file = std::move(*file),
                             .block = old.block,
                             .reported = old.reported,
                             .attempts = old.attempts + 1});
}

RSyncSession::Transfer RSyncSession::abort_transfer(List& operations, Budget& budget) {
  Transfer old = std::move(*transfer_);
  transfer_.reset();
  if (old.opened) {
    operations.emplace_back(Tuple{"abort", old.wanted.number});
    budget.spend(kOperationBytes);
  }
  return old;
}

void RSyncSession::drop_transfer(List& operations, Budget& budget, const Wanted& wanted) {
  operations.emplace_back(Tuple{"drop", wanted.number});
  budget.spend(kOperationBytes);
  forget(wanted);
}

void RSyncSession::forget(const Wanted& wanted) {
  states_[wanted.number] = State::kSent;
  if (wanted.was_hashed) {
    --hashing_files_;
    hashing_blocks_ -= blocks_of(wanted.number);
  }
}

void RSyncSession::open_new(List& operations, Budget& budget) {
  Transfer& transfer = *transfer_;
  if (std::exchange(transfer.opened, true)) {
    return;
  }
  const std::uint32_t number = transfer.wanted.number;
  if (!std::exchange(transfer.reported, true)) {
    observer_.on_send_file(tree_.relative(number));
  }
  const SourceFile& file = transfer.file;
  operations.emplace_back(Tuple{"open", number, file_mode(file.mode()), signed_value(file.size()), file.mtime()});
  budget.spend(kOperationBytes);
}

void RSyncSession::copy_equal(List& operations, Budget& budget) {
  Transfer& transfer = *transfer_;
  if (transfer.equal == 0) {
    return;
  }
  const std::uint64_t end = (transfer.offset + transfer.block - 1) / transfer.block;
  operations.emplace_back(
      Tuple{"copy", transfer.wanted.number, signed_value(end - transfer.equal), signed_value(transfer.equal)});
  budget.spend(kOperationBytes);
  transfer.equal = 0;
}

bool RSyncSession::is_equal_block(Budget& budget) {
  const Transfer& transfer = *transfer_;
  const std::uint64_t block = transfer.offset / transfer.block;
  const std::string_view digests = transfer.wanted.digests;
  if (block >= digests.size() / kDigestBytes) {
    return false;
  }
  budget.hash(transfer.block);
  const Digest& digest = hashes_.digest(transfer.wanted.number, transfer.file, transfer.block, block);
  return digests.substr(block * kDigestBytes, kDigestBytes) == std::string_view(digest.data(), digest.size());
}

std::uint64_t RSyncSession::blocks_of(std::uint32_t number) const {
  const std::uint64_t size = tree_[number].size;
  const std::uint64_t block = block_size(size);
  return (size + block - 1) / block;
}

// A program that runs as its owner is worth more there than here: only who asks for that gets it.
std::uint32_t RSyncSession::file_mode(std::uint32_t mode) const { return destination_.set_ids ? mode : mode & 0777U; }

// The sticky bit of a directory stays: without it, more could be done there than here.
std::uint32_t RSyncSession::directory_mode(std::uint32_t mode) const {
  return destination_.set_ids ? mode : mode & 01777U;
}

Value RSyncSession::described(const TreeEntry& entry) const {
  const Bytes name(entry.name);
  switch (entry.kind) {
    case TreeEntry::Kind::kDirectory: return Tuple{"directory", name, directory_mode(entry.mode), entry.mtime};
    case TreeEntry::Kind::kFile:
      return Tuple{"file", name, file_mode(entry.mode), signed_value(entry.size), entry.mtime};
    case TreeEntry::Kind::kLink: break;
  }
  return Tuple{"link", name, Bytes(entry.link), entry.link_is_inside};
}

// --- What it answers ---------------------------------------------------------------------------------

void RSyncSession::answered(const Value& answers) {
  if (in_flight_ == 0) {
    throw DataFormatError("an answer to nothing");
  }
  const auto* list = answers.get_if<List>();
  if (list == nullptr) {
    throw DataFormatError("an answer must be a list, not " + std::string(type_name(answers.type())));
  }
  for (const Value& answer : *list) {
    on_answer(answer);
  }
  --in_flight_;
  idle_ = false;
  if (phase_ == Phase::kListed && in_flight_ == 0) {
    phase_ = Phase::kSending;
    observer_.on_list(wanted_bytes_);
  }
}

void RSyncSession::on_answer(const Value& answer) {
  const auto kind = answer[0].as<std::string>();
  const auto number = answer[1].as<std::uint32_t>();
  const bool is_file = number < tree_.size() && tree_[number].kind == TreeEntry::Kind::kFile;
  const State state = is_file ? states_[number] : State::kDone;
  if (kind == "want" && state == State::kUnknown && phase_ <= Phase::kListed) {
    states_[number] = State::kWanted;
    ++unfinished_;
    wanted_bytes_ += tree_[number].size;
    if (answer[2].as<bool>()) {
      to_hash_.push_back(number);
    } else {
      to_send_.push_back({.number = number, .digests = {}});
    }
  } else if (kind == "hashes" && state == State::kAsked) {
    states_[number] = State::kWanted;
    Wanted wanted{.number = number, .was_hashed = true, .digests = {}};
    const auto size = answer[2].as<std::int64_t>();
    if (size >= 0) {
      wanted.old_size = static_cast<std::uint64_t>(size);
      wanted.digests = answer[3].as<Bytes>().view();
    }
    if (wanted.digests.size() > blocks_of(number) * kDigestBytes) {
      throw DataFormatError("too many digests for file " + std::to_string(number));
    }
    hashed_.push_back(std::move(wanted));
  } else if (kind == "done" && state == State::kSent) {
    states_[number] = State::kDone;
    --unfinished_;
    observer_.on_done(tree_[number].size);
  } else {
    const bool is_known = kind == "want" || kind == "hashes" || kind == "done";
    throw DataFormatError((is_known ? "'" + kind + "'" : "something unknown") + " about number " +
                          std::to_string(number) + " was said, which was not asked");
  }
}

}  // namespace execnet::core
