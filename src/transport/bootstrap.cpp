#include "transport/bootstrap.hpp"

#include "transport/transport.hpp"
#include "transport/worker_source.hpp"

namespace execnet::transport {

std::string path_literal(std::string_view path) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string result = "\"";
  for (const char c : path) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80) {
      result.append("\\udc").append({kHex[byte >> 4], kHex[byte & 15]});
    } else if (byte < 0x20 || byte == 0x7f || c == '"' || c == '\\') {
      result.append("\\x").append({kHex[byte >> 4], kHex[byte & 15]});
    } else {
      result.push_back(c);
    }
  }
  return result + '"';
}

std::string native_line(std::string_view native_module) {
  const std::string path = path_literal(native_module);
  // importlib's frozen core is in every interpreter from its start: nothing is looked up or read for it.
  // A module of its name may be there already: site packages are free to import execnet at the start.
  return "import sys,_frozen_importlib as b,_frozen_importlib_external as x;"
         "(sys.modules.get(\"execnet._core\")or b._load(b.ModuleSpec(\"execnet._core\","
         "x.ExtensionFileLoader(\"execnet._core\"," +
         path + "),origin=" + path + "))).serve(" + std::to_string(kStreamFd) + "," + std::to_string(kStderrFd) + ")";
}

std::string pure_line(bool stream_on_stdio) {
  // Over stdio, duplicates: the worker gives 0 and 1 to the code it runs and keeps these.
  const std::string in = stream_on_stdio ? "os.dup(0)" : std::to_string(kStreamFd);
  const std::string rest =
      stream_on_stdio ? "os.dup(1),None" : std::to_string(kStreamFd) + "," + std::to_string(kStderrFd);
  // 31: a gzip header is expected.
  return "import os,zlib;i=os.fdopen(" + in + ",\"rb\");g={\"__name__\":\"execnet_worker\"};" +
         "exec(compile(zlib.decompress(i.read(" + std::to_string(worker_source_gz().size()) +
         "),31),\"<execnet worker>\",\"exec\"),g);g[\"serve\"](i," + rest + ")";
}

}  // namespace execnet::transport
