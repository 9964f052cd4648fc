"""What can be typed, read from the parsers, and written as completion for three shells.

A library for this would be one more dependency for a page of shell text, and would not
know our values: ids of jobs are asked of the service while one types, states stand in
lists with commas, and what follows ``--`` is another program's command line.

Knows parsers; prints nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from . import main, submit_job
from .commands.limits import NAMES
from .filters import GROUPS, STATES

JOBS_OF = {
    "cancel": "active",
    "wait": "active",
    "hold": "queued,submitting",
    "priority": "queued,held",
    "explain": "active",
    "release": "held",
    "retry": "over",
}
"""Which jobs a command is for; the others take any."""

_METAVARS = {
    "FILE": "file",
    "PATH": "file",
    "DIR": "dir",
    "ID": "jobs",
    "STATE": "states",
    "NAME=VALUE": "words " + " ".join(f"{name}=" for name in NAMES),
}


@dataclass(frozen=True, slots=True)
class Option:
    """One option; `kind` says what its value is, and is empty where it takes none.

    Kinds: ``file``, ``dir``, ``jobs``, ``states``, ``words A B …``, ``any``.
    """

    names: tuple[str, ...]
    kind: str
    help: str


@dataclass(frozen=True, slots=True)
class Command:
    """One command line: its options, and the kind of what stands without one."""

    name: str
    help: str
    options: tuple[Option, ...]
    argument: str


def commands() -> Iterator[Command]:
    """Yield every command of `simyard`, in the order of its help; `submit` is `submit_job`."""
    for name, (_, text) in main.COMMANDS.items():
        if name == "submit":
            parser: argparse.ArgumentParser = submit_job.parser()
        else:
            parser, _ = main.command_parser(name)
        yield _described(name, text, parser)


def script(shell: str) -> str:
    """Return the completion of `simyard` and `submit_job` for ``bash``, ``zsh`` or ``fish``."""
    found = list(commands())
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](found)


def _described(name: str, text: str, parser: argparse.ArgumentParser) -> Command:
    options, argument = [], ""
    for action in parser._actions:
        if action.option_strings:
            help_text = (action.help or "").partition(";")[0].replace("%%", "%")
            options.append(Option(tuple(action.option_strings), _kind(action), help_text))
        else:
            argument = argument or _kind(action)
    if name == "submit":
        argument = ""  # all of that stands behind --
    return Command(name, text, tuple(options), argument)


def _kind(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if action.choices:
        return "words " + " ".join(map(str, action.choices))
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    # "FILE[=TARGET]" is a file, "[CONDITION:]ID" a job.
    return (
        _METAVARS.get(metavar)
        or _METAVARS.get(metavar.split("[")[0])
        or ("jobs" if metavar.endswith("]ID") else "any")
    )


# -- bash and zsh: tables, and one function that looks into them ---------------------------


def _tables(found: list[Command]) -> str:
    """Write the three tables that both shells read: options, kinds of values, of arguments."""
    options = [
        f"        {command.name}) printf '%s\\n' {' '.join(n for o in command.options for n in o.names)};;"
        for command in found
    ]
    kinds = [
        f"        {'|'.join(_quoted(f'{command.name} {name}') for name in option.names)}) "
        f"echo {_quoted(option.kind)};;"
        for command in found
        for option in command.options
        if option.kind
    ]
    arguments = [
        f"        {command.name}) echo {_quoted(command.argument)};;"
        for command in found
        if command.argument
    ]
    jobs = [f"        {name}) echo {states};;" for name, states in JOBS_OF.items()]
    return _TABLES.format(
        options="\n".join(options),
        kinds="\n".join(kinds),
        arguments="\n".join(arguments),
        jobs="\n".join(jobs),
        states=" ".join([*STATES, *GROUPS]),
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


_TABLES = """\
_simyard_options() {{
    case $1 in
{options}
    esac
}}

_simyard_kind() {{
    case "$1 $2" in
{kinds}
    esac
}}

_simyard_argument() {{
    case $1 in
{arguments}
    esac
}}

_simyard_jobs() {{
    case $1 in
{jobs}
    esac
}}

# What a value of a kind may be, one a line; files and folders are the shell's own business.
_simyard_values() {{
    local states
    case $2 in
        states) printf '%s\\n' {states};;
        jobs)
            states=$(_simyard_jobs "$1")
            simyard jobs --quiet --limit 200 ${{states:+"--state=$states"}} 2>/dev/null </dev/null;;
        words*) tr ' ' '\\n' <<<"${{2#words }}";;
    esac
}}
"""

_BASH = """\
# Completion of simyard and submit_job for bash; made by 'simyard completion bash'.

{tables}
_simyard_reply() {{ # COMMAND KIND WORD: the values of a kind that begin with the word
    local head= word=$3 line
    case $2 in
        file) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$word");;
        dir) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$word");;
        any) ;;
        *)
            if [[ $2 == states && $word == *,* ]]; then head=${{word%,*}}, word=${{word##*,}}; fi
            while IFS= read -r line; do
                [[ $line == "$word"* ]] && COMPREPLY+=("$head$line")
            done < <(_simyard_values "$1" "$2")
            [[ ${{COMPREPLY[0]-}} == *= ]] && compopt -o nospace 2>/dev/null;;
    esac
}}

_simyard() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command= kind= i
    COMPREPLY=()
    # bash takes "--state=run" apart at the sign.
    if [[ $word == = ]]; then
        word=
    elif [[ $before == = ]]; then
        before=${{COMP_WORDS[COMP_CWORD-2]}}
    fi
    [[ ${{1##*/}} == submit_job ]] && command=submit
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
            --)
                # What follows is another program's command line.
                if declare -F _command_offset >/dev/null; then
                    _command_offset $((i + 1))
                elif ((COMP_CWORD == i + 1)); then
                    mapfile -t COMPREPLY < <(compgen -c -- "$word")
                else
                    _simyard_reply submit file "$word"
                fi
                return;;
            --home|--url|--host|--port|--token) [[ -n $command ]] || ((i++));;
            -*|=) ;;
            *) [[ -n $command ]] || command=${{COMP_WORDS[i]}};;
        esac
    done
    if [[ -n $command ]]; then
        kind=$(_simyard_kind "$command" "$before")
    elif [[ $before == --home ]]; then
        kind=dir
    fi
    if [[ -n $kind ]]; then
        _simyard_reply "$command" "$kind" "$word"
    elif [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_simyard_options "${{command:-status}}")" -- "$word")
    elif [[ -z $command ]]; then
        mapfile -t COMPREPLY < <(compgen -W '{names} help' -- "$word")
    else
        _simyard_reply "$command" "$(_simyard_argument "$command")" "$word"
    fi
}}

complete -F _simyard simyard submit_job
"""

_ZSH = """\
#compdef simyard submit_job
# Completion of simyard and submit_job for zsh; made by 'simyard completion zsh'.

{tables}
_simyard_reply() {{ # COMMAND KIND
    case $2 in
        file) _files;;
        dir) _files -/;;
        any|'') ;;
        states) _values -s , state ${{(f)"$(_simyard_values "$1" states)"}};;
        *)
            local -a found=(${{(f)"$(_simyard_values "$1" "$2")"}})
            if [[ ${{found[1]-}} == *= ]]; then compadd -S '' -a found; else compadd -a found; fi;;
    esac
}}

_simyard() {{
    local command= kind= before=${{words[CURRENT-1]}} i
    local -a known=(
{described}
    )
    [[ ${{words[1]:t}} == submit_job ]] && command=submit
    for ((i = 2; i < CURRENT; i++)); do
        case ${{words[i]}} in
            --)
                shift $i words
                ((CURRENT -= i))
                _normal
                return;;
            --home|--url|--host|--port|--token) [[ -n $command ]] || ((i++));;
            -*) ;;
            *) [[ -n $command ]] || command=${{words[i]}};;
        esac
    done
    if [[ ${{words[CURRENT]}} == --*=* ]]; then
        before=${{words[CURRENT]%%=*}}
        compset -P '*='
    fi
    if [[ -n $command ]]; then
        kind=$(_simyard_kind "$command" "$before")
    elif [[ $before == --home ]]; then
        kind=dir
    fi
    if [[ -n $kind ]]; then
        _simyard_reply "$command" "$kind"
    elif [[ ${{words[CURRENT]}} == -* ]]; then
        compadd -- ${{(f)"$(_simyard_options "${{command:-status}}")"}}
    elif [[ -z $command ]]; then
        _describe command known
    else
        _simyard_reply "$command" "$(_simyard_argument "$command")"
    fi
}}

# Found on fpath, this file is the function at its first call; sourced, it is registered.
if [[ ${{funcstack[1]-}} == _simyard ]]; then
    _simyard "$@"
else
    compdef _simyard simyard submit_job
fi
"""


def _bash(found: list[Command]) -> str:
    return _BASH.format(tables=_tables(found), names=" ".join(command.name for command in found))


def _zsh(found: list[Command]) -> str:
    described = [f"        {_quoted(f'{command.name}:{command.help}')}" for command in found]
    return _ZSH.format(tables=_tables(found), described="\n".join(described))


# -- fish: one line for each option --------------------------------------------------------

_FISH = """\
# Completion of simyard and submit_job for fish; made by 'simyard completion fish'.

function __simyard_command --description 'the command that is typed, if it is there'
    set -l words (commandline -opc)
    set -l skip 0
    for word in $words[2..-1]
        if test $skip -eq 1
            set skip 0
        else if contains -- $word --home --url --host --port --token
            set skip 1
        else if not string match -q -- '-*' $word
            echo $word
            return
        end
    end
end

function __simyard_uses
    not contains -- -- (commandline -opc)
    and test "$(__simyard_command)" = "$argv[1]"
end

function __simyard_before
    not contains -- -- (commandline -opc)
end

function __simyard_needs_command
    test -z "$(__simyard_command)"
end

function __simyard_jobs
    simyard jobs --quiet --limit 200 $argv 2>/dev/null </dev/null
end

complete -c simyard -f -n __simyard_needs_command
complete -c submit_job -n '__simyard_before' -f
complete -c submit_job -n 'contains -- -- (commandline -opc)' -a '(__fish_complete_subcommand --fcs-skip=(math (contains -i -- -- (commandline -opc)) ))'
{lines}
"""


def _fish(found: list[Command]) -> str:
    lines = [
        f"complete -c simyard -n __simyard_needs_command -a {command.name} -d {_fished(command.help)}"
        for command in found
    ]
    for command in found:
        programs = [("simyard", f"__simyard_uses {command.name}")]
        if command.name == "submit":
            programs.append(("submit_job", "__simyard_before"))
        for program, condition in programs:
            start = f"complete -c {program} -n {_fished(condition)}"
            values = _fish_values(command.name, command.argument)
            lines.append(f"{start} {values or '-f'}")
            for option in command.options:
                names = " ".join(
                    f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
                    for name in option.names
                )
                takes = f" {_fish_values(command.name, option.kind)}" if option.kind else ""
                lines.append(f"{start} {names}{takes} -d {_fished(option.help)}")
    return _FISH.format(lines="\n".join(lines))


def _fish_values(command: str, kind: str) -> str:
    if kind == "file":
        return "-r -F"
    if kind == "dir":
        return "-x -a '(__fish_complete_directories)'"
    if kind == "states":
        return f"-x -a '{' '.join([*STATES, *GROUPS])}'"
    if kind == "jobs":
        states = JOBS_OF.get(command)
        return f"-x -a '(__simyard_jobs{f' --state {states}' if states else ''})'"
    if kind.startswith("words "):
        return f"-x -a {_fished(kind.removeprefix('words '))}"
    return "-x" if kind else ""


def _fished(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
