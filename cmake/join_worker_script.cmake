# cmake -DINPUTS=a.py;b.py -DOUTPUT=x.py -P join_worker_script.cmake
cmake_minimum_required(VERSION 3.25...4.0)

set(joined "")
foreach(input IN LISTS INPUTS)
  file(READ ${input} text)
  string(APPEND joined "${text}\n\n")
endforeach()
# What one module takes from another is there already.
set(import "\nfrom [.][a-z_]+ import")
string(REGEX REPLACE "${import} [(][^)]*[)]" "" joined "${joined}")
string(REGEX REPLACE "${import} [^\n]*" "" joined "${joined}")
file(WRITE ${OUTPUT} "${joined}")
