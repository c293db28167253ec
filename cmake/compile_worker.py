"""compile_worker.py SOURCE OUTPUT: worker.py as the interpreter that runs this has compiled it.

OUTPUT has the magic number of the interpreter's bytecode, 4 bytes, and the marshalled code object, compressed.
"""

import gzip
import importlib.util
import marshal
import sys
from pathlib import Path

source, output = map(Path, sys.argv[1:])
code = compile(source.read_bytes(), "<execnet worker>", "exec", dont_inherit=True, optimize=0)
output.write_bytes(importlib.util.MAGIC_NUMBER + gzip.compress(marshal.dumps(code), mtime=0))
