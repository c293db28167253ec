"""layers.py [ROOT]: checks that every #include of the sources goes down the layers of ARCHITECTURE.md.

    base <- value <- wire, loop, process <- transport, connection <- gateway <- rsync <- api
    api <- bindings; of the public headers: cli, examples

Prints each include that does not, and exits with 1 if there is one. Tests (`*_test.cpp`) lie beside the module that
they test but use it as programs do, so they may include anything.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

# A folder may include itself and the rows above its own. `src/` is left out of the names.
ROWS = [
    ["base"],
    ["value"],
    ["wire", "loop", "process"],
    ["transport", "connection"],
    ["gateway"],
    ["rsync"],
    ["api"],
    ["bindings"],
]
# Folders that see the public headers only.
OUTSIDE = ["cli", "examples"]
# A public header belongs to the layer of its source.
PUBLIC = {
    "base": ["error", "export", "version"],
    "value": ["convert", "value"],
    "wire": ["dump"],
    "transport": ["xspec"],
    "gateway": ["remote_info"],
    "api": ["channel", "execnet", "gateway", "group", "multichannel", "rsync", "source", "stream"],
}

SOURCES = [
    "src/*/*.[ch]pp",
    "include/execnet/*.hpp",
    "python/bindings/*.[ch]pp",
    "cli/**/*.[ch]pp",
    "examples/cpp/*.[ch]pp",
]
RANK = {layer: rank for rank, row in enumerate(ROWS) for layer in row}
LAYER_OF_PUBLIC = {f"execnet/{name}.hpp": layer for layer, names in PUBLIC.items() for name in names}
INCLUDE = re.compile(r'^\s*#\s*include\s*["<]([\w./]+)[">]', re.MULTILINE)


def layer_of(path: Path) -> str:
    """The layer of a source, given relative to the root. Raises KeyError for a folder or header that has none."""
    folder = path.parts[0]
    if folder == "include":
        return LAYER_OF_PUBLIC[path.relative_to("include").as_posix()]
    layer = "bindings" if folder == "python" else path.parts[1] if folder == "src" else folder
    if layer not in RANK and layer not in OUTSIDE:
        raise KeyError(layer)
    return layer


def is_allowed(layer: str, included: str) -> bool:
    """Whether a source of `layer` may include `included`, which is a path below src/ or include/."""
    owner = LAYER_OF_PUBLIC.get(included)
    if layer in OUTSIDE:
        return owner is not None
    if owner is None:
        owner = included.split("/")[0]
    return owner == layer or RANK[owner] < RANK[layer]


def violations(root: Path) -> list[str]:
    """A line for each include of the sources below `root` that does not go down."""
    found = []
    for source in sorted(path for pattern in SOURCES for path in root.glob(pattern)):
        path = source.relative_to(root)
        if path.name.endswith("_test.cpp"):
            continue
        try:
            layer = layer_of(path)
        except KeyError as error:
            found.append(f"{path}: {error} is in no layer; tools/layers.py has them all")
            continue
        for included in INCLUDE.findall(source.read_text()):
            if not any((root / base / included).is_file() for base in ("src", "include")):
                continue  # of the system, of a library, or beside the source
            if not is_allowed(layer, included):
                found.append(f"{path}: {layer} may not include {included}")
    return found


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    found = violations(root)
    print("\n".join(found) or "every include goes down the layers")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
