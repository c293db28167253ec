#include "worker_exec.hpp"

#include <nanobind/stl/string.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "channel.hpp"
#include "gil.hpp"
#include "imports.hpp"
#include "text.hpp"
#include "wire/frame.hpp"

namespace execnet::python {
namespace {

using core::WorkerEnd;

// Begins the file name of code that the library sends, and not the program. It imports at its top.
constexpr const char* kOwn = "<execnet ";

// An EXEC payload (docs/wire_format.md).
struct Request {
  nb::str source;
  nb::str filename;
  std::int64_t first_line;
  nb::object function;  // its name, or None
  nb::dict kwargs;
};

Request read_request(const WorkerEnd::Task& task, nb::handle gateway) {
  const nb::object payload = decode_from(task.channel->connection(), gateway, task.payload, StringConfig{});
  const nb::tuple parts = nb::cast<nb::tuple>(payload);
  if (parts.size() != 5) {
    throw wire::ProtocolError("EXEC without (source, filename, first line, function, kwargs)");
  }
  return {nb::cast<nb::str>(parts[0]), parts[1].is_none() ? nb::str("<remote exec>") : nb::cast<nb::str>(parts[1]),
          nb::cast<std::int64_t>(parts[2]), parts[3], nb::cast<nb::dict>(parts[4])};
}

// Newlines in front put the source on the lines of the file it came from.
nb::object compile(const Request& request, nb::handle builtins) {
  const nb::object padding = nb::str("\n") * nb::int_(request.first_line - 1);
  return builtins.attr("compile")(padding + request.source, request.filename, "exec", 0, true);
}

// What is run again and again is compiled once: that takes longer than all the rest of a short task. A few, since most
// sources come once only, and small ones, since they stay.
nb::object compiled(const Request& request, nb::handle builtins) {
  constexpr std::size_t kMost = 32;
  constexpr Py_ssize_t kMostCharacters = 16384;
  if (PyUnicode_GET_LENGTH(request.source.ptr()) > kMostCharacters) {
    return compile(request, builtins);
  }
  static nb::dict& cache = *new nb::dict();  // never destroyed: the interpreter may be gone by then
  const nb::tuple key = nb::make_tuple(request.source, request.filename, request.first_line);
  nb::object code = nb::borrow(PyDict_GetItemWithError(cache.ptr(), key.ptr()));
  if (code.is_valid()) {
    return code;
  }
  code = compile(request, builtins);
  if (cache.size() >= kMost) {
    cache.clear();
  }
  cache[key] = code;
  return code;
}

bool is_own(const Request& request) {
  Py_ssize_t size = 0;
  const char* name = PyUnicode_IS_COMPACT_ASCII(request.filename.ptr()) != 0
                         ? PyUnicode_AsUTF8AndSize(request.filename.ptr(), &size)  // its own memory
                         : nullptr;
  return name != nullptr && std::string_view(name, static_cast<std::size_t>(size)).starts_with(kOwn);
}

void run(const Request& request, const nb::object& channel) {
  const nb::object builtins = nb::module_::import_("builtins");
  nb::dict globals;
  globals["channel"] = channel;
  globals["__name__"] = "__channelexec__";
  globals["__builtins__"] = builtins;
  const nb::object code = compiled(request, builtins);
  {
    std::optional<InstalledImports> installed;
    if (is_own(request)) {
      installed.emplace();
    }
    if (!nb::steal(PyEval_EvalCode(code.ptr(), globals.ptr(), globals.ptr())).is_valid()) {
      throw nb::python_error();
    }
  }
  if (!request.function.is_none()) {
    globals[request.function](channel, **request.kwargs);
  }
}

// The lines of the request's file: as it is here, if it is, with the source that was sent in its place.
nb::list lines_of(const Request& request, const nb::object& linecache) {
  nb::list lines = nb::cast<nb::list>(linecache.attr("getlines")(request.filename));
  const auto begin = std::max<Py_ssize_t>(0, request.first_line - 1);
  while (static_cast<Py_ssize_t>(lines.size()) < begin) {
    lines.append("\n");
  }
  // Not splitlines(), which knows more ends of lines than the compiler does.
  const nb::object sent =
      nb::module_::import_("io").attr("StringIO")(request.source + nb::str("\n"), nb::none()).attr("readlines")();
  if (PyList_SetSlice(lines.ptr(), begin, begin + PyObject_Length(sent.ptr()), sent.ptr()) != 0) {
    throw nb::python_error();
  }
  return lines;
}

// The traceback as text. It begins with the frame of the request's own code: there are no frames of ours.
std::string format(const nb::python_error& error, const Request& request) {
  const InstalledImports installed;
  const nb::object linecache = nb::module_::import_("linecache");
  nb::dict cache = nb::cast<nb::dict>(linecache.attr("cache"));
  const nb::object before = cache.attr("get")(request.filename);
  nb::list lines = nb::list(lines_of(request, linecache));
  cache[request.filename] = nb::make_tuple(1, nb::none(), lines, request.filename);
  const std::string text = traceback_of(error);
  if (before.is_none()) {
    cache.attr("pop")(request.filename, nb::none());
  } else {
    cache[request.filename] = before;
  }
  return text;
}

// An error of the compiler, or of the call of a function, has no frame here. Programs look for the first line all the
// same.
std::string with_first_line(const nb::python_error& error, const std::string& text) {
  constexpr const char* kFirst = "Traceback (most recent call last):\n";
  return error.traceback().is_valid() || text.starts_with(kFirst) ? text : kFirst + text;
}

std::string describe(const nb::python_error& error, const Request& request) {
  try {
    return with_first_line(error, format(error, request));
  } catch (const std::exception&) {  // of the lines
    return with_first_line(error, traceback_of(error));
  }
}

// What the task raised, if anything.
std::optional<std::string> execute(const WorkerEnd::Task& task, nb::handle gateway) {
  try {
    const Request request = read_request(task, gateway);
    try {
      run(request, make_channel(task.channel, gateway));
      return std::nullopt;
    } catch (const nb::python_error& error) {
      if (error.type().is(PyExc_EOFError) && task.channel->no_more_items()) {
        return std::nullopt;  // its channel, or the gateway, has ended
      }
      return describe(error, request);
    }
  } catch (const std::exception& error) {
    return std::string("cannot run what was sent: ") + text_of(error);
  }
}

}  // namespace

std::optional<std::string> run_task(const WorkerEnd::Task& task, nb::handle gateway) {
  const pid_t pid = ::getpid();
  const WithGil gil;
  std::optional<std::string> error = execute(task, gateway);
  flush("stdout");
  if (::getpid() != pid) {  // a forked child has come back from the code: the gateway is the parent's
    if (error) {
      PySys_FormatStderr("%s", error->c_str());
    }
    ::_exit(error ? 1 : 0);
  }
  return error;
}

void flush(const char* name) {
  try {
    nb::module_::import_("sys").attr(name).attr("flush")();
  } catch (const nb::python_error&) {  // None, closed, or replaced by something that is no file
  }
}

}  // namespace execnet::python
