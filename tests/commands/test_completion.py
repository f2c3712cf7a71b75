"""Help has an example of every command that the program takes; shells complete what the parser knows."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.commands.completion import SHELLS, words_of
from pipelines.commands.examples import EXAMPLES
from tests.commands_page import leaves


def test_every_command_has_an_example_that_it_takes() -> None:
    parser = cli._parser()
    commands = dict(leaves(parser))
    assert set(EXAMPLES) == set(commands)
    for name, command in commands.items():
        words = shlex.split(EXAMPLES[name].partition(" > ")[0])
        assert words[: len(name.split()) + 1] == ["apiary", *name.split()]
        parser.parse_args(words[1:])
        assert command.format_help().partition("example:")[2].split() == EXAMPLES[name].split()


def completed(shell: str, line: str, script: Path) -> list[str]:
    """What a shell offers for the last word of a line."""
    if shell == "bash":
        words = line.split(" ")
        quoted = " ".join(map(shlex.quote, words))
        program = (
            f"source {script}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _apiary;"
            " printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        arguments = ["bash", "--norc", "-c", program]
    else:
        arguments = ["fish", "--no-config", "-c", f"source {script}; complete -C {shlex.quote(line)}"]
    # Where there are no files: shells offer them too.
    found = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=script.parent)
    return [text.split("\t")[0] for text in found.stdout.splitlines() if text]


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_a_shell_completes_commands_options_and_choices(
    shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert cli.main(["completion", shell]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    assert set(completed(shell, "apiary dev", script)) == {"dev", "device", "devices"}
    assert completed(shell, "apiary device consent w", script) == ["withdraw"]
    assert set(completed(shell, "apiary device ship --wh", script)) == {"--when-full"}
    assert set(completed(shell, "apiary usage --by ", script)) >= {"model", "tenant", "agent"}
    assert completed(shell, "apiary usage --by model --js", script) == ["--json"]
    assert completed(shell, "apiary completion f", script) == ["fish"]


def test_scripts_hold_every_command() -> None:
    parser = cli._parser()
    words = words_of(parser)
    for name, command in leaves(parser):
        *above, last = ["apiary", *name.split()]
        assert last in words[" ".join(above)]
        for action in command._actions:
            assert not action.option_strings or set(action.option_strings) & set(words[command.prog])
    for make in SHELLS.values():
        script = make(words)
        assert all(f"'apiary {name}'" in script for name, _ in leaves(parser))
