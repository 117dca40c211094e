"""Pages of the command line, generated from the parsers of the verbs."""

import importlib
from argparse import SUPPRESS, Action
from pathlib import Path

from pyg_clusters.cli.main import VERBS
from pyg_clusters.options.parsing import verb_parser


def write_command_pages(folder: Path):
    """Write a page per verb."""
    folder.mkdir(exist_ok=True)
    pages = {verb: command_page(verb, purpose) for verb, purpose in VERBS.items()}
    for old in folder.glob("*.md"):
        if old.stem not in pages:
            old.unlink()
    for verb, page in pages.items():
        path = folder / f"{verb}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != page:
            path.write_text(page, encoding="utf-8")


def command_page(verb: str, purpose: str) -> str:
    """Page of a verb."""
    module = importlib.import_module(f"pyg_clusters.cli.{verb.replace('-', '_')}")
    head = f"# {verb}\n"
    if hasattr(module, "HELP"):
        return f"{head}\n{purpose[0].upper()}{purpose[1:]}.\n\n```text\n{module.HELP.strip()}\n```\n"
    if hasattr(module, "COMMANDS"):
        commands = module.COMMANDS.items()
        return head + "".join(f"\n## {name}\n{options(f'{verb} {name}', command)}" for name, command in commands)
    return head + options(verb, module)


def options(verb: str, command) -> str:
    """Description, example and options of a verb or subcommand."""
    kind, example = (getattr(command, name, None) for name in ("OPTIONS", "EXAMPLE"))
    parser = verb_parser(verb, kind or command.options, example or command.example)
    actions = [action for action in parser._actions if action.dest != "help" and action.help != SUPPRESS]
    usage = f"```text\n{parser.usage}\n```\n\nFor example\n\n```bash\n{example or command.example}\n```\n"
    actions.sort(key=lambda action: bool(action.option_strings))
    return f"\n{(parser.description or '').replace('%%', '%')}\n\n{usage}\n" + "\n".join(map(option, actions))


def option(action: Action) -> str:
    """An option as an entry of a definition list."""
    names = ", ".join(action.option_strings) or action.dest.upper()
    value = f" {action.metavar or 'VALUE'}" if action.option_strings and action.nargs != 0 else ""
    text = (action.help or "").replace("%%", "%").replace("<", "\\<").replace("*", "\\*").replace("_", "\\_")
    default = action.default
    shown = action.option_strings and action.nargs != 0 and default not in (None, "", SUPPRESS)
    return f"`{names}{value}`\n: {text}{f' (default: `{default}`)' if shown and 'default' not in text else ''}\n"
