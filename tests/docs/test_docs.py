"""Runs the code of README.md, docs/ and the other documents, so that what they show is true.

The language of a block says how it is run:

``python``    with ``>>>`` as a doctest, else as a program; each block for itself
``cpp``       compiled and run: with ``int main`` as a program, else as the body of a function
``cmake``     part of a project that finds an installed library; its program is built
``console``   lines after ``$``: recipes are looked up in the Makefile. Others need a comment before
              the block, which says why they are not run: ``<!-- test: not run: reason -->``
``text``      no code
"""

from __future__ import annotations

import builtins
import doctest
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import execnet

ROOT = Path(__file__).resolve().parents[2]
# The build that this package belongs to. The package consists of links; its unresolved path is in the build.
BUILD = Path(execnet.__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md"))]
COMPILER = [os.environ.get("CXX", "g++"), "-std=c++20", "-Wall", "-Wextra", "-Werror"]
BLOCK = re.compile(r"^(?:<!-- test: (?P<note>.*) -->\n)?```(?P<language>\S*)\n(?P<code>.*?)^```$", re.M | re.S)
HEADERS = ["cassert", "chrono", "filesystem", "fstream", "future", "iostream", "string", "thread", "vector"]
HEADERS += ["sys/wait.h", "unistd.h", "execnet/execnet.hpp"]
# A fresh machine has no pip but that of the environment that runs this.
PROGRAMS = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
LANGUAGES = {"python", "cpp", "cmake", "console", "text"}


class Block(NamedTuple):
    document: Path
    line: int  # of its first line of code, counted from 1
    language: str
    note: str
    code: str

    @property
    def where(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    @property
    def is_program(self) -> bool:
        return "int main(" in self.code

    @property
    def needs_ssh(self) -> bool:
        return "ssh=localhost" in self.code

    @property
    def needs_namespace(self) -> bool:
        return "isolate=pidns" in self.code


def blocks_of(document: Path) -> Iterator[Block]:
    text = document.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        yield Block(document, line, match["language"], match["note"] or "", match["code"])


BLOCKS = [block for document in DOCUMENTS for block in blocks_of(document)]


def each(language: str, *, ssh: bool = False) -> pytest.MarkDecorator:
    """The blocks of a language: those that need an ssh server, or those that do not."""
    chosen = [block for block in BLOCKS if block.language == language and block.needs_ssh == ssh]
    assert chosen, f"no {language} to test"
    return pytest.mark.parametrize("block", chosen, ids=[block.where for block in chosen])


def run(command: list[str | Path], cwd: Path, timeout: float = 120) -> str:
    """Runs a command, which must succeed, and returns its output."""
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def library() -> Path:
    found = sorted(BUILD.glob("libexecnet.a")) + sorted(BUILD.glob("libexecnet.so"))
    assert found, f"no libexecnet in {BUILD}; run `make docs`, which builds it"
    return found[0]


def test_every_block_has_a_language_that_is_tested() -> None:
    strange = [f"{block.where}: {block.language!r}" for block in BLOCKS if block.language not in LANGUAGES]
    assert not strange
    for document in DOCUMENTS:
        fences = len(re.findall(r"^\s*```", document.read_text(encoding="utf-8"), re.M))
        assert fences == 2 * len(list(blocks_of(document))), f"{document}: a block is not recognised"


def test_links_lead_to_files() -> None:
    broken = []
    for document in DOCUMENTS:
        prose = BLOCK.sub("", document.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", prose):
            if not target.startswith("https://") and not (document.parent / target).exists():
                broken.append(f"{document.relative_to(ROOT)}: {target}")
    assert not broken


def test_paths_that_the_text_names_exist() -> None:
    folders = "bench|cmake|docs|examples|fuzz|guard|include|python|src|tests|tools|worker"
    broken = []
    for document in DOCUMENTS:
        if document.name == "CHANGELOG.md":  # has what there was
            continue
        for path in re.findall(rf"`((?:{folders})/[\w./]+)`", document.read_text(encoding="utf-8")):
            if not (ROOT / path).exists():
                broken.append(f"{document.relative_to(ROOT)}: {path}")
    assert not broken


def test_readme_has_the_sessions_of_the_demo() -> None:
    def statements(text: str) -> list[tuple[str, str]]:
        return [(example.source, example.want) for example in doctest.DocTestParser().get_examples(text)]

    readme = [block.code for block in blocks_of(ROOT / "README.md") if block.language == "python"]
    sessions = (ROOT / "examples/python/reference_page.txt").read_text(encoding="utf-8")
    assert statements("\n".join(readme)) == statements(sessions)


def test_the_figures_of_the_readme_are_those_of_the_guide() -> None:
    guide = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    measured = {cells[0]: cells[1:3] for cells in map(cells_of, guide.splitlines()) if len(cells) == 5}
    shown = (ROOT / "README.md").read_text(encoding="utf-8").split("## Installation")[0]
    for row, readme_row in {
        "start 100 popen": "Starts fast",
        "start 100 popen//preload": "Starts fast",
        "echo of a small int": "Answers fast",
        "64 MiB from the worker": "Carries much",
        "64 MiB from the worker, as a view": "Carries much",
    }.items():
        line = next(line for line in shown.splitlines() if readme_row in line)
        seconds = [seconds_of(figure) for figure in re.findall(r"[\d.]+ (?:s|ms|us|ns)\b", line)]
        for figure in map(seconds_of, measured[row]):
            assert any(abs(each - figure) <= 0.1 * figure for each in seconds), f"{row}: {figure} s is not in {line}"


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def seconds_of(figure: str) -> float:
    number, unit = figure.split()
    return float(number) * {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}[unit]


# --- Python -----------------------------------------------------------------------------------------


@each("python")
def test_python(block: Block, tmp_path: Path) -> None:
    if block.needs_namespace and (refusal := refusal_of_a_namespace()):
        assert "isolate=pidns takes root or user namespaces" in refusal  # the text says that it may be so
    else:
        run_python(block, tmp_path)


@pytest.mark.usefixtures("sshd")
@each("python", ssh=True)
def test_python_over_ssh(block: Block, tmp_path: Path) -> None:
    run_python(block, tmp_path)


def refusal_of_a_namespace() -> str:
    """What ``isolate=pidns`` says on a machine that does not allow it; nothing where it works."""
    group = execnet.Group()
    try:
        group.makegateway("popen//isolate=pidns")
    except execnet.HostNotFound as error:
        return str(error)
    finally:
        group.terminate(timeout=1.0)
    return ""


def run_python(block: Block, directory: Path) -> None:
    if ">>>" in block.code:
        run_session(block)
    else:
        program = directory / "program.py"
        program.write_text(block.code, encoding="utf-8")
        run([sys.executable, program], directory, timeout=120)


def run_session(block: Block) -> None:
    test = doctest.DocTestParser().get_doctest(block.code, {}, block.where, str(block.document), block.line - 1)
    report: list[str] = []
    try:
        doctest.DocTestRunner().run(test, out=report.append, clear_globs=False)
    finally:
        for value in [*test.globs.values(), execnet.default_group]:
            if isinstance(value, execnet.Group):
                value.terminate(timeout=1.0)
        vars(builtins).pop("_", None)  # what was printed last; it may be a gateway
    assert not report, "".join(report)


# --- C++ --------------------------------------------------------------------------------------------


def compile_cpp(source: str, directory: Path) -> Path:
    """Builds a program against the public headers and the library."""
    (directory / "program.cpp").write_text(source, encoding="utf-8")
    program = directory / "program"
    run(
        [*COMPILER, f"-I{ROOT / 'include'}", "program.cpp", library(), "-lcrypto", "-lz", "-pthread", "-o", program],
        directory,
    )
    return program


@pytest.fixture(scope="module")
def snippets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One program of all C++ blocks that are not programs. Its argument is the block to run."""
    source = [f"#include <{header}>" for header in HEADERS]
    cases = []
    for number, block in enumerate(BLOCKS):
        if block.language == "cpp" and not block.is_program:
            source += [f"void block_{number}() {{", f'#line {block.line} "{block.document}"', block.code, "}"]
            cases.append(f'if (name == "{number}") {{ block_{number}(); return 0; }}')
    source += ["int main(int, char** arguments) {", "const std::string name = arguments[1];", *cases, "return 2; }", ""]
    return compile_cpp("\n".join(source), tmp_path_factory.mktemp("snippets"))


@pytest.mark.timeout(600)
@each("cpp")
def test_cpp(block: Block, snippets: Path, tmp_path: Path) -> None:
    run_cpp(block, snippets, tmp_path)


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("sshd")
@each("cpp", ssh=True)
def test_cpp_over_ssh(block: Block, snippets: Path, tmp_path: Path) -> None:
    run_cpp(block, snippets, tmp_path)


def run_cpp(block: Block, snippets: Path, directory: Path) -> None:
    if block.is_program:
        run([compile_cpp(block.code, directory)], directory, timeout=120)
    else:
        run([snippets, str(BLOCKS.index(block))], directory, timeout=120)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library as `make install` installs it."""
    path = tmp_path_factory.mktemp("prefix")
    run([cmake(), "--install", BUILD, "--prefix", path], path)
    return path


def cmake() -> Path:
    # The cmake of the environment that the build was made with.
    cache = (BUILD / "CMakeCache.txt").read_text(encoding="utf-8")
    found = re.search(r"^CMAKE_COMMAND:INTERNAL=(.*)$", cache, re.M)
    assert found, f"{BUILD} is no build"
    return Path(found[1])


@pytest.mark.timeout(600)
@each("cmake")
def test_cmake(block: Block, prefix: Path, tmp_path: Path) -> None:
    start = "cmake_minimum_required(VERSION 3.25)\nproject(documented LANGUAGES CXX)\n"
    (tmp_path / "CMakeLists.txt").write_text(start + block.code, encoding="utf-8")
    for source in re.findall(r"\S+\.cpp", block.code):
        (tmp_path / source).write_text("#include <execnet/execnet.hpp>\nint main() { execnet::Group group; }\n")
    run([cmake(), "-S", ".", "-B", "build", f"-DCMAKE_PREFIX_PATH={prefix}"], tmp_path)
    run([cmake(), "--build", "build"], tmp_path)


# --- The shell --------------------------------------------------------------------------------------


def recipes() -> set[str]:
    return set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


@each("console")
def test_console(block: Block) -> None:
    for line in block.code.splitlines():
        assert line.startswith("$ "), f"{block.where}: what is not a command should not be here: {line}"
        program, *arguments = line[2:].split()
        if program == "make":
            wanted = {argument for argument in arguments if "=" not in argument}
            assert wanted <= recipes(), f"{block.where}: {line}"
        else:
            assert block.note.startswith("not run: "), f"{block.where}: say why this is not run: {line}"
            assert shutil.which(program, path=PROGRAMS), f"{block.where}: there is no program {program}"


def test_recipes_that_the_text_names_exist() -> None:
    named = set()
    for document in DOCUMENTS:
        named |= set(re.findall(r"`make ([a-z]+)", document.read_text(encoding="utf-8")))
    assert named <= recipes()
