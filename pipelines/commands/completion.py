"""`apiary completion`: a script that lets a shell complete commands, options and their choices.

It is made of the parser and starts no program while somebody types. Does not belong here: the commands.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from typing import Any

from pipelines.commands.terminal import Shared

Words = dict[str, list[str]]


def words_of(parser: argparse.ArgumentParser) -> Words:
    """What may follow a command (`apiary device`) or an option of it (`apiary device ship --every`)."""
    return dict(_words(parser))


def _words(parser: argparse.ArgumentParser) -> Iterator[tuple[str, list[str]]]:
    follows: list[str] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            follows += action.choices
            for child in action.choices.values():
                yield from _words(child)
        elif action.option_strings:
            follows += [name for name in action.option_strings if name.startswith("--")]
            if action.choices:
                yield from ((f"{parser.prog} {name}", list(map(str, action.choices))) for name in action.option_strings)
        elif action.choices:
            follows += map(str, action.choices)
    yield parser.prog, follows


def bash(words: Words) -> str:
    """The script for bash. Where a command takes a file, the shell's own completion follows."""
    paths, options = _split(words)
    return "\n".join([
        "_apiary() {",
        '    local path=apiary word current="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"',
        '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
        '        case "$path $word" in',
        f"            {'|'.join(_quoted(path) for path in paths if ' ' in path)}) path=\"$path $word\" ;;",
        "        esac",
        "    done",
        '    case "$path $before" in',
        *(f"        {_quoted(option)}) COMPREPLY=($(compgen -W {_quoted(' '.join(found))} -- \"$current\")); return ;;"
          for option, found in options.items()),
        "    esac",
        '    case "$path" in',
        *(f"        {_quoted(path)}) COMPREPLY=($(compgen -W {_quoted(' '.join(found))} -- \"$current\")) ;;"
          for path, found in paths.items()),
        "    esac",
        "}",
        "complete -o default -F _apiary apiary",
    ])  # fmt: skip


def zsh(words: Words) -> str:
    """The script for zsh, which can read the one for bash."""
    return f"autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n{bash(words)}"


def fish(words: Words) -> str:
    """The script for fish."""
    paths, options = _split(words)
    return "\n".join([
        "function __apiary_words",
        "    set -l path apiary",
        "    set -l before apiary",
        "    for word in (commandline -opc)[2..-1]",
        "        set before $word",
        '        switch "$path $word"',
        f"            case {' '.join(_quoted(path) for path in paths if ' ' in path)}",
        '                set path "$path $word"',
        "        end",
        "    end",
        '    switch "$path $before"',
        *(f"        case {_quoted(option)}\n            printf '%s\\n' {' '.join(found)}\n            return"
          for option, found in options.items()),
        "    end",
        '    switch "$path"',
        *(f"        case {_quoted(path)}\n            printf '%s\\n' {' '.join(found)}"
          for path, found in paths.items()),
        "    end",
        "end",
        "complete -c apiary -a '(__apiary_words)'",
    ])  # fmt: skip


def _split(words: Words) -> tuple[Words, Words]:
    """Commands, and options that have choices."""
    options = {path: found for path, found in words.items() if path.rpartition(" ")[2].startswith("-")}
    return {path: found for path, found in words.items() if path not in options}, options


def _quoted(text: str) -> str:
    return f"'{text}'"


SHELLS: dict[str, Callable[[Words], str]] = {"bash": bash, "zsh": zsh, "fish": fish}


def add(group: Any, shared: Shared, parser: argparse.ArgumentParser) -> None:
    """The command under `apiary`."""

    def run(options: argparse.Namespace) -> int:
        sys.stdout.write(SHELLS[options.shell](words_of(parser)) + "\n")
        return 0

    command = shared.add(group, "completion", "print the script by which a shell completes this program's words", run)
    command.add_argument("shell", choices=list(SHELLS))
