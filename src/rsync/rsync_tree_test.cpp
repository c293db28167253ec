#include "rsync/rsync_tree.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <execnet/error.hpp>
#include <filesystem>
#include <fstream>
#include <system_error>

namespace execnet::core {
namespace {

namespace fs = std::filesystem;
using Kind = TreeEntry::Kind;

class SourceTreeTest : public testing::Test {
 protected:
  SourceTreeTest() {
    std::string pattern = fs::temp_directory_path() / "execnet-tree-XXXXXX";
    root = ::mkdtemp(pattern.data());
  }
  ~SourceTreeTest() override { fs::remove_all(root); }

  [[nodiscard]] static SourceTree all(const fs::path& path) {
    return SourceTree(path.string(), [](const std::string&) { return true; });
  }
  [[nodiscard]] static std::vector<std::string> names(const SourceTree& tree) {
    std::vector<std::string> found;
    for (std::size_t number = 0; number < tree.size(); ++number) {
      found.push_back(tree.relative(number));
    }
    return found;
  }

  fs::path root;
};

// As long as it lives, no more than so many more descriptors can be had.
class FewDescriptors {
 public:
  explicit FewDescriptors(rlim_t more) {
    const base::Fd next(::open("/", O_PATH | O_CLOEXEC));
    ::getrlimit(RLIMIT_NOFILE, &limit_);
    struct rlimit low = limit_;
    low.rlim_cur = static_cast<rlim_t>(next.get()) + more;
    ::setrlimit(RLIMIT_NOFILE, &low);
  }
  ~FewDescriptors() { ::setrlimit(RLIMIT_NOFILE, &limit_); }
  FewDescriptors(const FewDescriptors&) = delete;
  FewDescriptors& operator=(const FewDescriptors&) = delete;

 private:
  struct rlimit limit_{};
};

using Names = std::vector<std::string>;

TEST_F(SourceTreeTest, NumbersTheEntriesOfADirectoryOneAfterTheOther) {
  fs::create_directories(root / "b" / "deep");
  fs::create_directory(root / "a");
  std::ofstream(root / "b" / "deep" / "x") << "12345";
  std::ofstream(root / "a" / "y");
  std::ofstream(root / "c");
  const SourceTree tree = all(root);
  EXPECT_EQ(names(tree), (Names{"", "a", "b", "c", "a/y", "b/deep", "b/deep/x"}));
  EXPECT_EQ(tree[0].first_child, 1U);
  EXPECT_EQ(tree[0].children, 3U);
  EXPECT_EQ(tree[2].first_child, 5U);
  EXPECT_EQ(tree[6].size, 5U);
  EXPECT_EQ(tree.path(6), (root / "b/deep/x").string());
}

TEST_F(SourceTreeTest, LeavesOutWhatIsNotWantedAndWhatIsBelowIt) {
  fs::create_directories(root / "a" / "x");
  fs::create_directories(root / "b" / "x");
  Names asked;
  const SourceTree tree(root.string() + "/", [&](const std::string& path) {
    asked.push_back(path.substr(root.string().size()));
    return !path.ends_with("/a");
  });
  EXPECT_EQ(names(tree), (Names{"", "b", "b/x"}));
  EXPECT_EQ(asked, (Names{"/a", "/b", "/b/x"}));
}

TEST_F(SourceTreeTest, MakesLinksIntoTheTreeRelativeToItsRoot) {
  fs::create_symlink(root / "sub" / "." / "file", root / "1-inside");
  fs::create_symlink(root, root / "2-root");
  fs::create_symlink(root.string() + "more/x", root / "3-near");
  fs::create_symlink("sub/file", root / "4-relative");
  fs::create_symlink((root / "..").string(), root / "5-above");
  const SourceTree tree = all(root);
  EXPECT_TRUE(tree[1].link_is_inside);
  EXPECT_EQ(tree[1].link, "sub/file");
  EXPECT_TRUE(tree[2].link_is_inside);
  EXPECT_EQ(tree[2].link, "");
  EXPECT_FALSE(tree[3].link_is_inside);
  EXPECT_EQ(tree[3].link, root.string() + "more/x");
  EXPECT_FALSE(tree[4].link_is_inside);
  EXPECT_EQ(tree[4].link, "sub/file");
  EXPECT_FALSE(tree[5].link_is_inside);
}

TEST_F(SourceTreeTest, ALongLinkIsReadWhole) {
  const std::string target(1000, 'x');
  fs::create_symlink(target, root / "link");
  EXPECT_EQ(all(root)[1].link, target);
}

TEST_F(SourceTreeTest, TheRootMayBeAFileOrALinkToADirectory) {
  std::ofstream(root / "file") << "1";
  fs::create_directory(root / "sub");
  fs::create_symlink("sub", root / "link");
  const SourceTree file = all(root / "file");
  EXPECT_EQ(file.size(), 1U);
  EXPECT_EQ(file[0].kind, Kind::kFile);
  EXPECT_EQ(file.path(0), (root / "file").string());
  EXPECT_EQ(all(root / "link")[0].kind, Kind::kDirectory);
}

TEST_F(SourceTreeTest, NamesWhatItCannotTake) {
  EXPECT_THROW(static_cast<void>(all(root / "nothing")), std::system_error);
  ASSERT_EQ(::mkfifo((root / "pipe").c_str(), 0600), 0);
  EXPECT_THROW(static_cast<void>(all(root)), SpecError);
  EXPECT_THROW(static_cast<void>(all(root / "pipe")), SpecError);
}

TEST_F(SourceTreeTest, WhatIsSwappedForALinkMeanwhileIsNotFollowed) {
  fs::create_directories(root / "source" / "a" / "deep");
  fs::create_directory(root / "source" / "b");
  std::ofstream(root / "source" / "a" / "deep" / "file") << "1";
  fs::create_directories(root / "outside" / "deep");
  std::ofstream(root / "outside" / "deep" / "file") << "secret";
  std::ofstream(root / "outside" / "file") << "secret";
  const auto swap = [&](const fs::path& path, const fs::path& target) {
    fs::rename(path, path.string() + "-aside");
    fs::create_symlink(target, path);
  };
  const SourceTree listed(root / "source", [&](const std::string& path) {
    if (path.ends_with("/b")) {  // "a" was seen, and is not listed yet
      swap(root / "source" / "a", root / "outside");
    }
    return true;
  });
  EXPECT_EQ(names(listed), (Names{"", "a", "b"}));
  fs::remove(root / "source" / "a");
  fs::rename(root / "source" / "a-aside", root / "source" / "a");

  const SourceTree tree = all(root / "source");
  ASSERT_EQ(names(tree), (Names{"", "a", "b", "a/deep", "a/deep/file"}));
  EXPECT_TRUE(tree.open(4));
  swap(root / "source" / "a" / "deep" / "file", root / "outside" / "file");
  EXPECT_FALSE(tree.open(4));
  const SourceTree again = all(root / "source");
  swap(root / "source" / "a", root / "outside");
  EXPECT_FALSE(again.open(4));
}

TEST_F(SourceTreeTest, WhatBecomesAFifoIsNotWaitedFor) {
  std::ofstream(root / "file") << "1";
  const SourceTree tree = all(root);
  fs::remove(root / "file");
  ASSERT_EQ(::mkfifo((root / "file").c_str(), 0600), 0);
  EXPECT_TRUE(tree.open(1));  // SourceFile looks what it is
}

TEST_F(SourceTreeTest, ATreeMayBeDeeperThanThereAreDescriptors) {
  fs::path deep = root;
  for (int i = 0; i < 100; ++i) {
    deep /= "d";
  }
  fs::create_directories(deep);
  std::ofstream(deep / "file") << "1";
  const FewDescriptors few(20);
  const SourceTree tree = all(root);
  EXPECT_EQ(tree.size(), 102U);
  EXPECT_TRUE(tree.open(101));
}

TEST_F(SourceTreeTest, WhatVanishesMeanwhileIsNotThere) {
  fs::create_directory(root / "a");
  fs::create_directory(root / "b");
  const SourceTree tree(root.string(), [&](const std::string& path) {
    if (path.ends_with("b")) {
      fs::remove(root / "a");
      fs::remove(root / "b");
    }
    return true;
  });
  EXPECT_EQ(names(tree), (Names{"", "a"}));
  EXPECT_EQ(tree[1].children, 0U);
}

}  // namespace
}  // namespace execnet::core
