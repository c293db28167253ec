# Refuses at once, in one sentence, what would else end in an error of the compiler minutes later.
set(implementation cpython)
if(Python_EXECUTABLE)  # pip names the one that it installs for
  execute_process(COMMAND ${Python_EXECUTABLE} -c "import sys; print(sys.implementation.name)"
                  OUTPUT_VARIABLE implementation OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
endif()
if(NOT CMAKE_SYSTEM_NAME STREQUAL "Linux" OR NOT implementation STREQUAL "cpython")
  message(FATAL_ERROR "execnet is for CPython 3.10 or later on Linux, and this is ${implementation} on "
                      "${CMAKE_SYSTEM_NAME}; workers may run on PyPy, where nothing is installed.")
endif()
