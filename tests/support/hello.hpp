// The first frame of a coordinator, for tests that play one. Any thread.
#pragma once

#include "base/buffer.hpp"
#include "connection/value_message.hpp"

namespace execnet::testing {

// The payload of its HELLO, as docs/wire_format.md has it.
inline base::Buffer coordinator_hello() {
  return core::encode_value(Value(Dict{{"protocol", 1},
                                       {"id", "gw0"},
                                       {"execmodel", "thread"},
                                       {"chdir", Value()},
                                       {"nice", Value()},
                                       {"env", Dict{}},
                                       {"dont_write_bytecode", false},
                                       {"stdin", "inherit"},
                                       {"stdout", "inherit"},
                                       {"stderr", "inherit"},
                                       {"grace", 1000},
                                       {"detached", "kill"},
                                       {"window", Value()},
                                       {"deflate", false},
                                       {"debug", 0}}));
}

}  // namespace execnet::testing
