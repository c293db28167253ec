# EXECNET_SANITIZE instruments everything that is compiled from here on: a part without the
# instrumentation would hide errors (address) or report false ones (thread).
set(EXECNET_SANITIZE "" CACHE STRING "address (with undefined behaviour), thread, fuzzer (libFuzzer and address), or nothing")
set_property(CACHE EXECNET_SANITIZE PROPERTY STRINGS "" address thread fuzzer)

set(flags "")
if(EXECNET_SANITIZE STREQUAL "address")
  # Not vptr: g++'s asks through a pipe whether memory can be read, and takes everything for wrong where a test has left no
  # descriptor for it.
  set(flags -fsanitize=address,undefined -fno-sanitize=vptr -fno-sanitize-recover=undefined)
elseif(EXECNET_SANITIZE STREQUAL "thread")
  set(flags -fsanitize=thread)
elseif(EXECNET_SANITIZE STREQUAL "fuzzer")
  set(flags -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined)
elseif(EXECNET_SANITIZE)
  message(FATAL_ERROR "EXECNET_SANITIZE is '${EXECNET_SANITIZE}'; it can be address, thread, fuzzer or empty.")
endif()
if(flags)
  # Reports name lines and no variables: -g1 takes a third less time to compile than -g.
  add_compile_options(${flags} -O1 -g1 -fno-omit-frame-pointer)
  add_link_options(${flags})
endif()
