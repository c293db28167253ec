// Text that may come from anybody, as error messages show it. Any thread.
#pragma once

#include <string>
#include <string_view>

namespace execnet::base {

// The bytes as UTF-8 that a terminal prints and does not obey, and that reads in the order in which it is written:
// escape sequences, other control characters (C0, DEL, C1) and bidirectional overrides are shown as Python escapes
// them. Newlines and tabs stay, and so do all letters; a carriage return before a newline goes. What is printable
// already comes back as it is.
//   printable("\x1b[31mred\r\n") == "\\x1b[31mred\n"
std::string printable(std::string_view bytes);

}  // namespace execnet::base
