#include "transport/bootstrap.hpp"

#include <cstddef>
#include <cstdint>

#include "transport/fork_server_source.hpp"
#include "transport/line_worker_source.hpp"
#include "transport/transport.hpp"
#include "transport/worker_source.hpp"

namespace execnet::transport {
namespace {

// The next so many bytes of the file i.
std::string read(std::size_t size) { return "i.read(" + std::to_string(size) + ")"; }

// What gzip has made of it. 31: its header is expected.
std::string decompress(const std::string& bytes) { return "zlib.decompress(" + bytes + ",31)"; }

// What is imported for the worker must not come from the working directory, where a file may have the name of any
// module. The worker, or the fork server, puts the directory back before code of others runs. Not with -I or -P: it is
// not on the path then.
constexpr const char* kWithoutDirectory = "import sys;sys.path[:1]==[\"\"]and sys.path.pop(0);";

std::string compile(const std::string& source, const std::string& title) {
  return "compile(" + source + ",\"<execnet " + title + ">\",\"exec\")";
}

// `variable` becomes the globals of that code.
std::string run(const std::string& code, const std::string& variable, const std::string& name) {
  return variable + "={\"__name__\":\"execnet_" + name + "\"};exec(" + code + "," + variable + ");";
}

// g becomes the globals of the worker that is next in the file i.
std::string run_worker(const std::optional<WorkerCode>& code) {
  const std::string source = read(worker_source_gz().size());
  if (!code) {
    return "import zlib;" + run(compile(decompress(source), "worker"), "g", "worker");
  }
  static constexpr char kHex[] = "0123456789abcdef";
  std::string magic;
  for (const char c : code->magic) {
    const auto byte = static_cast<unsigned char>(c);
    magic.append("\\x").append({kHex[byte >> 4], kHex[byte & 15]});
  }
  // As importlib has it that is in every Python 3 from its start.
  return "import marshal,zlib;m=getattr(sys.modules.get(\"_frozen_importlib_external\"),\"MAGIC_NUMBER\",0);c,s=" +
         read(code->code_gz.size()) + "," + source + ";" +
         run("marshal.loads(" + decompress("c") + ")if m==b\"" + magic +
                 "\"and sys.implementation.name==\"cpython\"else " + compile(decompress("s"), "worker"),
             "g", "worker");
}

// For what follows.
constexpr const char* kImportForCore = "import _frozen_importlib as b,_frozen_importlib_external as x;";

// Our extension, as an expression.
std::string core_module(std::string_view native_module) {
  const std::string path = path_literal(native_module);
  // importlib's frozen core is in every interpreter from its start: nothing is looked up or read for it.
  // A module of its name may be there already: site packages are free to import execnet at the start.
  return "sys.modules.get(\"execnet._core\")or b._load(b.ModuleSpec(\"execnet._core\","
         "x.ExtensionFileLoader(\"execnet._core\"," +
         path + "),origin=" + path + "))";
}

// A string of Python.
std::string base64(std::string_view bytes) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text = "\"";
  for (std::size_t at = 0; at < bytes.size(); at += 3) {
    std::uint32_t group = 0;
    for (std::size_t i = 0; i < 3; ++i) {
      group = group << 8 | (at + i < bytes.size() ? static_cast<unsigned char>(bytes[at + i]) : 0U);
    }
    for (std::size_t i = 0; i < 4; ++i) {
      text.push_back(at + i <= bytes.size() ? kDigits[group >> (18 - 6 * i) & 63U] : '=');
    }
  }
  return text + '"';
}

std::string line_of_worker(const std::string& before, const std::string& call) {
  return path_literal(before + std::string(line_worker_source()) + call) + "\n";
}

// Where more than the standard descriptors may be found.
std::string beside() {
  return std::to_string(kStreamFd) + "," + std::to_string(kStderrFd) + "," + std::to_string(kStdoutFd);
}

}  // namespace

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
  return std::string(kWithoutDirectory) + kImportForCore + ("c=" + core_module(native_module)) + ";c.serve(" +
         std::to_string(kStreamFd) + "," + std::to_string(kStderrFd) + ")";
}

std::string fork_server_line(const std::vector<std::string>& modules, std::string_view native_module,
                             std::chrono::milliseconds grace) {
  std::string names;
  for (const std::string& name : modules) {
    names += (names.empty() ? "" : ",") + path_literal(name);
  }
  const std::string arguments = "[" + names + "]," + std::to_string(grace.count());
  // Nothing follows the sources until the fork server says that it is ready, so its buffered reader swallows nothing.
  // Its own source stays on this machine, and to load zlib for it would make the process larger, and its forks slower.
  const std::string line =
      kWithoutDirectory +
      std::string(
          "import os;sys.version_info[0]>2 or sys.exit(\"preload needs Python 3, and this is Python \""
          "+sys.version.split()[0]);i=open(0,\"rb\",closefd=False);") +
      run(compile(read(fork_server_source().size()), "fork server"), "f", "fork_server");
  if (native_module.empty()) {
    return line + run_worker({}) + "f[\"fork_workers\"](" + arguments +
           ");f[\"run\"](lambda r,e:g[\"serve\"](os.fdopen(r,\"rb\"),r,e),os._exit)";
  }
  return line + kImportForCore + "c=f[\"fork_workers\"](" + arguments + ",lambda:" + core_module(native_module) +
         ");f[\"run\"](c.serve,c.exit)";
}

std::string server_line(std::string_view hello) {
  return line_of_worker("", "run(clientsock," + base64(hello) + "," + base64(worker_source_gz()) + ")");
}

std::string stdin_line(std::string_view hello) {
  return line_of_worker(kWithoutDirectory,
                        "run_on_stdio(" + base64(hello) + "," + base64(worker_source_gz()) + "," + beside() + ")");
}

std::string pure_socket_line(const std::optional<WorkerCode>& code) {
  const std::string stream = std::to_string(kStreamFd);
  return kWithoutDirectory + ("import os;i=os.fdopen(" + stream + ",\"rb\");") + run_worker(code) + "g[\"serve\"](i," +
         stream + "," + std::to_string(kStderrFd) + ")";
}

std::string pure_line(const std::optional<WorkerCode>& code) {
  // Duplicates: the worker gives 0 and 1 to the code it runs and keeps these.
  return kWithoutDirectory + std::string("import os;i=os.fdopen(os.dup(0),\"rb\");") + run_worker(code) +
         "g[\"serve\"](i,os.dup(1),None,(" + beside() + "))";
}

}  // namespace execnet::transport
