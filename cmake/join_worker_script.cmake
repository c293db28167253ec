# cmake -DINPUTS=a.py;b.py -DOUTPUT=x.py -P join_worker_script.cmake
cmake_minimum_required(VERSION 3.25...4.0)

set(joined "")
foreach(input IN LISTS INPUTS)
  file(READ ${input} text)
  string(APPEND joined "${text}\n\n")
endforeach()
# What one module takes from another is there already, under its own name.
set(import "\nfrom [.][a-z_]+ import")
if(joined MATCHES "\nfrom [.][^\n]* as ")
  message(FATAL_ERROR "The modules of the worker cannot take names from each other as others: ${CMAKE_MATCH_0}")
endif()
string(REGEX REPLACE "${import} [(][^)]*[)]" "" joined "${joined}")
string(REGEX REPLACE "${import} [^\n]*" "" joined "${joined}")
if(joined MATCHES "\n *(from|import) +[.][^\n]*")
  message(FATAL_ERROR "The modules of the worker can take from each other by `from .module import names` only, at the "
                      "beginning of a line: ${CMAKE_MATCH_0}")
endif()
file(WRITE ${OUTPUT} "${joined}")
