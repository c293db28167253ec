// The words of a shell's command line, in both directions. Values; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace execnet::transport {

// The text as one word of a command line, for sh, bash, zsh, csh and fish alike: one does not know
// whose login shell it will be. Left as it is when it needs no quotes.
//   shell_quote("it's") == R"('it'\''s')"
std::string shell_quote(std::string_view word);

// The words of a text, split like a POSIX shell does, with quotes and backslashes but nothing
// expanded. Throws SpecError for a quote that is not closed or a backslash with nothing after it.
//   shell_split("env A='b c' python") == {"env", "A=b c", "python"}
std::vector<std::string> shell_split(std::string_view text);

}  // namespace execnet::transport
