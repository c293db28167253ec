"""Code that came to be run: compiled, and left out of its own tracebacks."""

from .errors import ProtocolError
from .imports import INSTALLED
from .system import PY3, portable, unicode_type

THIS_FILE = "<execnet worker>"
FIRST_LINE = "Traceback (most recent call last):\n"  # programs look for it


def check_exec(request):
    """Throws ProtocolError unless it is what EXEC has to carry."""
    if type(request) is tuple and len(request) == 5:
        source, filename, first_line, function, kwargs = request
        texts = [text for text in (source, filename, function) if text is not None]
        good = all(isinstance(text, (str, unicode_type)) for text in texts) and source is not None
        if good and type(first_line) is int and type(kwargs) is dict:
            return
    raise ProtocolError("EXEC without (source, filename, first line, function, kwargs)")


def compile_source(code_of, filename):
    first_line, source = code_of
    if not PY3:  # it is UTF-8, whatever encoding its file had
        lines = source.split("\n", 2)
        for index, line in enumerate(lines[:2]):
            if line.lstrip().startswith("#"):
                lines[index] = line.replace("coding", "encoded", 1)
        source = "\n".join(lines)
    padded = "\n" * (first_line - 1) + source
    return compile(padded if PY3 else b"\xef\xbb\xbf" + padded, filename, "exec", 0, True)


def summary(kind, value):
    """An exception in a line, whatever its class does."""
    try:
        return portable("%s: %s" % (kind.__name__, value))
    except Exception:
        return portable(kind.__name__)


def format_error(error, sources):
    """The traceback of sys.exc_info() as text, without the frames of this file.

    `sources` (file name -> (first line, source)) are shown where the files are not, or not the same.
    """
    with INSTALLED:
        return format_with_sources(error, sources)


def format_with_sources(error, sources):
    saved = {}
    try:
        import linecache  # for which there may be no descriptor left
        import traceback

        trace = error[2]
        while trace is not None:
            name = trace.tb_frame.f_code.co_filename
            if name in sources and name not in saved:
                first_line, source = sources[name]
                lines = linecache.getlines(name)[: max(0, first_line - 1)]
                lines += ["\n"] * (first_line - 1 - len(lines))
                lines += [line + "\n" for line in source.split("\n")]
                lines += linecache.getlines(name)[len(lines) :]
                saved[name] = linecache.cache.get(name)
                linecache.cache[name] = (1, None, lines, name)
            trace = trace.tb_next
        if not PY3:
            frames = [frame for frame in traceback.extract_tb(error[2]) if frame[0] != THIS_FILE]
            parts = [FIRST_LINE] + traceback.format_list(frames)
            return portable("".join(parts + traceback.format_exception_only(*error[:2])))
        report = traceback.TracebackException(*error)
        reports = [report]
        while reports:
            one = reports.pop()
            one.stack[:] = [frame for frame in one.stack if frame.filename != THIS_FILE]
            reports += [other for other in (one.__cause__, one.__context__) if other is not None]
            reports += getattr(one, "exceptions", None) or []
        text = "".join(report.format())
        if not report.stack and not text.startswith(FIRST_LINE):  # of the compiler, or of the call of a function
            text = FIRST_LINE + text
        return portable(text)
    except Exception as failure:
        return u"%s (its traceback cannot be shown: %s)" % (summary(*error[:2]), summary(type(failure), failure))
    finally:
        for name, entry in saved.items():
            if entry is None:
                linecache.cache.pop(name, None)
            else:
                linecache.cache[name] = entry
