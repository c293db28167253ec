# Warnings of our own targets; the presets make them errors (CMAKE_COMPILE_WARNING_AS_ERROR).
function(execnet_warnings target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion)
endfunction()
