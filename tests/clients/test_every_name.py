"""A program that uses every public name: the same output here and with the released execnet."""

from __future__ import annotations

from pathlib import Path

from environments import run

PROGRAM = Path(__file__).with_name("every_name.py")


def lines_of(python: str, directory: Path) -> list[str]:
    directory.mkdir()
    done = run(python, [PROGRAM], directory, 120)
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("\nend\n"), done.stdout
    return done.stdout.splitlines()


def test_its_output_is_the_same_but_where_it_says_so(environments: dict[str, str], tmp_path: Path) -> None:
    assert len(PROGRAM.read_text().splitlines()) >= 150
    here = lines_of(environments["here"], tmp_path / "here")
    released = lines_of(environments["released"], tmp_path / "released")
    differs = "differs: "
    assert [line for line in here if not line.startswith(differs)] == [
        line for line in released if not line.startswith(differs)
    ]
    assert [line.removeprefix(differs) for line in here if line.startswith(differs)] == [
        "dumps of 2**31: 'nothing' 'DumpError'",
        "path of what cannot be dumped: True",
        "truncated: 'LoadError' 'LoadError'",
        "no interpreter: 'HostNotFound'",
        "private key: ('ValueError', ['ValueError'])",  # AttributeError there
        "empty spec: 'ValueError' 'ValueError'",
        "id taken: 'ValueError' 2",
        "refused socket: 'HostNotFound'",
    ]
    assert not {line for line in here if line.startswith(differs)} & set(released)
