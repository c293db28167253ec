# cmake -DINPUT=x.py -DOUTPUT=x.cpp -DNAME=function -DHEADER=folder/x.hpp -DNAMESPACE=folder -DGZIP=ON -P embed_worker_script.cmake
cmake_minimum_required(VERSION 3.25...4.0)

cmake_path(GET INPUT FILENAME name)
if(GZIP)
  set(archive ${OUTPUT}.gz)
  file(ARCHIVE_CREATE OUTPUT ${archive} PATHS ${INPUT} FORMAT raw COMPRESSION GZip COMPRESSION_LEVEL 9)
  file(READ ${archive} hex HEX)
  file(REMOVE ${archive})
  # Bytes 4 to 7 of a gzip header are the time of compression; zero, so that the same source makes the same library.
  string(SUBSTRING "${hex}" 0 8 magic)
  string(SUBSTRING "${hex}" 16 -1 rest)
  set(hex "${magic}00000000${rest}")
else()
  file(READ ${INPUT} hex HEX)
endif()

string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
string(REGEX REPLACE "(................................................................................)" "\\1\n    "
       bytes "${bytes}")
file(WRITE ${OUTPUT} "// Generated from ${name}.
#include \"${HEADER}\"

namespace execnet::${NAMESPACE} {
namespace {

constexpr unsigned char kBytes[] = {
    ${bytes}
};

}  // namespace

std::string_view ${NAME}() { return {reinterpret_cast<const char*>(kBytes), sizeof kBytes}; }

}  // namespace execnet::${NAMESPACE}
")
