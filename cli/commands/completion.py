"""`simyard completion`: what makes a shell complete our command lines."""

from __future__ import annotations

import argparse

from .. import output

HOME_ONLY = True
SHELLS = ("bash", "zsh", "fish")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.epilog = (
        "To have it in every new shell, once:\n"
        "  bash: simyard completion bash > ~/.local/share/bash-completion/completions/simyard\n"
        "        and the same into …/completions/submit_job\n"
        "  zsh:  simyard completion zsh > ~/.zfunc/_simyard  (a folder of your fpath)\n"
        "  fish: simyard completion fish > ~/.config/fish/completions/simyard.fish"
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell it is for")


def run(options: argparse.Namespace) -> int:
    """Print the completion."""
    from ..completion import script

    output.write(script(options.shell))
    return 0
