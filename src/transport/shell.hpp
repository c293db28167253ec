// The words of a shell's command line, in both directions. Values; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace execnet::transport {

// The text as one word of a command line, for sh, bash, zsh, csh and fish alike, since we do not know
// which login shell will read it. A text that needs no quotes is left as it is.
//   shell_quote("it's") == R"('it'\''s')"
std::string shell_quote(std::string_view word);

// The words of a text, split as by a POSIX shell, with quotes and backslashes but without
// expansions. Throws SpecError for a quote that is not closed or a backslash at the end.
//   shell_split("env A='b c' python") == {"env", "A=b c", "python"}
std::vector<std::string> shell_split(std::string_view text);

}  // namespace execnet::transport
