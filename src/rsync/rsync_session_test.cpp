// A session against a target that is played by the test, over a real tree of files.
#include "rsync/rsync_session.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <execnet/error.hpp>
#include <filesystem>
#include <fstream>
#include <functional>

namespace execnet::core {
namespace {

namespace fs = std::filesystem;

class Notes final : public SessionObserver {
 public:
  void on_list(std::uint64_t bytes) override { listed.push_back(bytes); }
  void on_send_file(const std::string& relative) override {
    sent.push_back(relative);
    if (when_sent) {
      when_sent();
    }
  }
  void on_done(std::uint64_t bytes) override { done.push_back(bytes); }
  void on_unreadable(std::uint32_t number) override { unreadable.push_back(number); }

  std::vector<std::uint64_t> listed;
  std::vector<std::string> sent;
  std::vector<std::uint64_t> done;
  std::vector<std::uint32_t> unreadable;
  std::function<void()> when_sent;
};

class RSyncSessionTest : public testing::Test {
 protected:
  RSyncSessionTest() {
    std::string pattern = fs::temp_directory_path() / "execnet-rsync-XXXXXX";
    directory = ::mkdtemp(pattern.data());
  }
  ~RSyncSessionTest() override { fs::remove_all(directory); }

  void write(const std::string& name, const std::string& content) const {
    std::ofstream(directory / name, std::ios::binary) << content;
  }
  void scan() {
    tree.emplace(directory.string(), [](const std::string&) { return true; });
  }
  RSyncSession session() { return RSyncSession(*tree, hashes, {.path = "there", .delete_others = true}, notes); }

  fs::path directory;
  std::optional<SourceTree> tree;
  BlockHashes hashes;
  Notes notes;
};

std::string digest_of(std::string_view bytes) {
  Sha256 sha;
  sha.update(bytes);
  const Digest digest = sha.digest();
  return {digest.data(), digest.size()};
}

std::vector<std::string> kinds_of(const List& operations) {
  std::vector<std::string> kinds;
  for (const Value& operation : operations) {
    kinds.push_back(operation[0].as<std::string>());
  }
  return kinds;
}

// What an honest target answers when files are complete.
Value answers_to(const List& operations) {
  List answers;
  for (const Value& operation : operations) {
    const auto kind = operation[0].as<std::string>();
    if (kind == "close" || kind == "keep" || kind == "drop") {
      answers.emplace_back(Tuple{"done", operation[1]});
    }
  }
  return Value(std::move(answers));
}

// What the session says until it waits for an answer, all in one.
List all_messages(RSyncSession& session) {
  List operations;
  while (session.can_send()) {
    if (const auto message = session.next_message()) {
      operations.insert(operations.end(), message->begin(), message->end());
      session.answered(answers_to(*message));
    }
  }
  return operations;
}

using Kinds = std::vector<std::string>;

TEST_F(RSyncSessionTest, BlocksAreSoManyAtMostAndTheSameForEveryTarget) {
  EXPECT_EQ(block_size(0), kSmallestBlock);
  EXPECT_EQ(block_size(kSmallestBlock * kMostBlocks), kSmallestBlock);
  EXPECT_EQ(block_size(kSmallestBlock * kMostBlocks + 1), 2 * kSmallestBlock);
  EXPECT_EQ(block_size(std::uint64_t{1} << 40), std::uint64_t{1} << 28);
}

TEST_F(RSyncSessionTest, ListsThenFinishesWhenNothingIsWanted) {
  write("a", "hello");
  scan();
  RSyncSession session = this->session();
  const auto message = session.next_message();
  ASSERT_TRUE(message);
  EXPECT_EQ(kinds_of(*message), (Kinds{"root", "list"}));
  EXPECT_EQ((*message)[1][2][0][1], Value(Bytes("a")));
  EXPECT_FALSE(session.next_message());
  EXPECT_FALSE(session.can_send());
  session.answered(Value(List{}));
  EXPECT_EQ(notes.listed, std::vector<std::uint64_t>{0});
  EXPECT_EQ(kinds_of(*session.next_message()), Kinds{"finish"});
  EXPECT_FALSE(session.finished());
  session.answered(Value(List{}));
  EXPECT_TRUE(session.finished());
}

TEST_F(RSyncSessionTest, SendsABigTreeOfNamesInMessagesOfBoundedSize) {
  for (int i = 0; i < 5000; ++i) {
    write("a-rather-long-name-for-a-file-" + std::to_string(i), "");
  }
  scan();
  RSyncSession session = this->session();
  std::size_t children = 0;
  int messages = 0;
  while (notes.listed.empty()) {
    const auto message = session.next_message();
    if (!message) {
      break;
    }
    ++messages;
    for (const Value& operation : *message) {
      if (operation[0] == Value("list")) {
        children += operation[2].as<List>().size();
      }
    }
    session.answered(Value(List{}));
  }
  EXPECT_EQ(children, 5000U);
  EXPECT_GT(messages, 1);
}

TEST_F(RSyncSessionTest, KeepsNoMoreThanAWindowUnanswered) {
  write("big", std::string(40 * kSmallestBlock, 'x'));
  scan();
  RSyncSession session = this->session();
  static_cast<void>(session.next_message());
  session.answered(Value(List{Tuple{"want", 1, false}}));
  int messages = 0;
  std::size_t bytes = 0;
  while (session.can_send()) {
    const auto message = session.next_message();
    ASSERT_TRUE(message);
    ++messages;
    for (const Value& operation : *message) {
      if (operation[0] == Value("data")) {
        bytes += operation[2].as<Bytes>().size();
      }
    }
  }
  EXPECT_EQ(messages, RSyncSession::kWindow);
  EXPECT_LE(bytes, RSyncSession::kWindow * 2 * RSyncSession::kMessageBytes);
  session.answered(Value(List{}));
  EXPECT_TRUE(session.can_send());
}

TEST_F(RSyncSessionTest, SendsOnlyTheBlocksThatDiffer) {
  std::string old(5 * kSmallestBlock + 10, 'x');
  std::string changed = old;
  changed[2 * kSmallestBlock] = 'y';
  write("file", changed);
  scan();
  RSyncSession session = this->session();
  static_cast<void>(session.next_message());
  session.answered(Value(List{Tuple{"want", 1, true}}));
  EXPECT_EQ(kinds_of(*session.next_message()), Kinds{"hash"});
  std::string digests;
  for (std::size_t at = 0; at < old.size(); at += kSmallestBlock) {
    digests += digest_of(std::string_view(old).substr(at, kSmallestBlock));
  }
  session.answered(Value(List{Tuple{"hashes", 1, old.size(), Bytes(digests)}}));
  const List operations = all_messages(session);
  EXPECT_EQ(kinds_of(operations), (Kinds{"open", "copy", "data", "copy", "close", "finish"}));
  EXPECT_EQ(operations[1], Value(Tuple{"copy", 1, 0, 2}));
  EXPECT_EQ(operations[2], Value(Tuple{"data", 1, Bytes(changed.substr(2 * kSmallestBlock, kSmallestBlock))}));
  EXPECT_EQ(operations[3], Value(Tuple{"copy", 1, 3, 3}));
  EXPECT_EQ(notes.sent, std::vector<std::string>{"file"});
}

TEST_F(RSyncSessionTest, OnlyModeAndTimeOfEqualContent) {
  write("file", "same");
  scan();
  RSyncSession session = this->session();
  static_cast<void>(session.next_message());
  session.answered(Value(List{Tuple{"want", 1, true}}));
  static_cast<void>(session.next_message());
  session.answered(Value(List{Tuple{"hashes", 1, 4, Bytes(digest_of("same"))}}));
  EXPECT_EQ(kinds_of(all_messages(session)), (Kinds{"keep", "finish"}));
  EXPECT_TRUE(notes.sent.empty());
}

TEST_F(RSyncSessionTest, AFileThatNeverHoldsStillIsGivenUp) {
  write("file", std::string(2 * kSmallestBlock, 'x'));
  scan();
  RSyncSession session = this->session();
  static_cast<void>(session.next_message());
  session.answered(Value(List{Tuple{"want", 1, false}}));
  Kinds kinds;
  int round = 0;
  while (session.can_send()) {
    if (const auto message = session.next_message()) {
      const Kinds more = kinds_of(*message);
      kinds.insert(kinds.end(), more.begin(), more.end());
      session.answered(answers_to(*message));
    }
    write("file", std::string(2 * kSmallestBlock, 'x') + std::string(static_cast<std::size_t>(++round), 'y'));
  }
  EXPECT_EQ(std::count(kinds.begin(), kinds.end(), "abort"), 3);
  EXPECT_EQ(Kinds(kinds.end() - 2, kinds.end()), (Kinds{"drop", "finish"}));
  EXPECT_EQ(session.unsteady(), std::vector<std::string>{(directory / "file").string()});
}

TEST_F(RSyncSessionTest, ATargetThatNeverSaysThatAFileIsDoneIsRefusedAndNotWaitedFor) {
  write("file", "x");
  scan();
  const std::vector<Value> wants{Value(List{Tuple{"want", 1, true}}), Value(List{Tuple{"want", 1, false}})};
  for (const Value& want : wants) {  // the first is then asked for hashes, and gives none
    RSyncSession session = this->session();
    static_cast<void>(session.next_message());
    session.answered(want);
    ASSERT_TRUE(session.next_message());
    session.answered(Value(List{}));
    EXPECT_THROW(static_cast<void>(session.next_message()), DataFormatError);
  }
}

TEST_F(RSyncSessionTest, AFileIsWantedBeforeTheListsAreAnsweredOrNever) {
  write("a", "x");
  write("b", "x");
  scan();
  RSyncSession session = this->session();
  static_cast<void>(session.next_message());
  session.answered(Value(List{Tuple{"want", 1, false}}));
  const auto message = session.next_message();
  ASSERT_TRUE(message);
  EXPECT_THROW(session.answered(Value(List{Tuple{"want", 2, false}})), DataFormatError);
}

TEST_F(RSyncSessionTest, WhatIsAFileNoMoreIsDropped) {
  write("fifo", "x");
  write("link", "x");
  scan();
  for (const char* name : {"fifo", "link"}) {
    fs::remove(directory / name);
  }
  ASSERT_EQ(::mkfifo((directory / "fifo").c_str(), 0600), 0);
  fs::create_symlink("/etc/hostname", directory / "link");
  RSyncSession session = this->session();
  static_cast<void>(session.next_message());
  session.answered(Value(List{Tuple{"want", 1, false}, Tuple{"want", 2, false}}));
  EXPECT_EQ(kinds_of(all_messages(session)), (Kinds{"drop", "drop", "finish"}));
}

TEST_F(RSyncSessionTest, WhatFailsWhileItIsReadIsTakenBackAndLeftOut) {
  const std::string speed = "/sys/class/net/lo/speed";  // can be opened; each read(2) of it fails
  const base::Fd file(::open(speed.c_str(), O_RDONLY | O_CLOEXEC));
  char byte = 0;
  if (!file || ::read(file.get(), &byte, 1) >= 0) {
    GTEST_SKIP() << speed << " is not there, or can be read";
  }
  tree.emplace("/sys/class/net/lo", [&](const std::string& path) { return path == speed; });
  RSyncSession session = this->session();
  static_cast<void>(session.next_message());
  session.answered(Value(List{Tuple{"want", 1, false}}));
  EXPECT_EQ(kinds_of(all_messages(session)), (Kinds{"open", "abort", "drop", "finish"}));
  EXPECT_EQ(notes.unreadable, std::vector<std::uint32_t>{1});
}

TEST_F(RSyncSessionTest, SetIdBitsGoAlongOnlyIfAskedFor) {
  write("program", "x");
  fs::create_directory(directory / "shared");
  ASSERT_EQ(::chmod((directory / "program").c_str(), 06755), 0);
  ASSERT_EQ(::chmod((directory / "shared").c_str(), 03777), 0);
  scan();
  for (const bool set_ids : {false, true}) {
    RSyncSession session(*tree, hashes, {.path = "there", .set_ids = set_ids}, notes);
    const List operations = *session.next_message();
    EXPECT_EQ(operations[0][7], Value(set_ids));
    const Value& children = operations[1][2];
    EXPECT_EQ(children[0][2], Value(set_ids ? 06755 : 0755));
    EXPECT_EQ(children[1][2], Value(set_ids ? 03777 : 01777));  // the sticky bit takes away, and stays
    session.answered(Value(List{Tuple{"want", 1, false}}));
    EXPECT_EQ((*session.next_message())[0][2], Value(set_ids ? 06755 : 0755));
  }
}

TEST_F(RSyncSessionTest, AnswersThatBelongToNothingAreRefused) {
  write("file", "x");
  fs::create_directory(directory / "sub");
  scan();
  const std::vector<Value> bad{
      Value(5),
      Value(List{5}),
      Value(List{Tuple{}}),
      Value(List{Tuple{"want", 0, false}}),
      Value(List{Tuple{"want", 2, false}}),
      Value(List{Tuple{"want", 3, false}}),
      Value(List{Tuple{"want", -1, false}}),
      Value(List{Tuple{"want", 1, false}, Tuple{"want", 1, false}}),
      Value(List{Tuple{"done", 1}}),
      Value(List{Tuple{"want", 1, false}, Tuple{"done", 1}}),
      Value(List{Tuple{"want", 1, true}, Tuple{"hashes", 1, 1, Bytes("")}}),
      Value(List{Tuple{"nonsense", 1}}),
  };
  for (const Value& answers : bad) {
    RSyncSession session = this->session();
    EXPECT_THROW(session.answered(Value(List{})), DataFormatError);
    static_cast<void>(session.next_message());
    EXPECT_THROW(session.answered(answers), DataFormatError) << answers;
  }
}

}  // namespace
}  // namespace execnet::core
