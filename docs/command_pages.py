"""Pages of the command line, generated from the parsers of the verbs."""

from argparse import SUPPRESS, Action
from pathlib import Path

from pyg_clusters.cli import main_verbs, subcommands
from pyg_clusters.options import Verb
from pyg_clusters.options.parsing import verb_parser


def write_command_pages(folder: Path):
    """Write a page per verb."""
    folder.mkdir(exist_ok=True)
    pages = {verb: command_page(verb, entry) for verb, entry in main_verbs().items()}
    for old in folder.glob("*.md"):
        if old.stem not in pages:
            old.unlink()
    for verb, page in pages.items():
        path = folder / f"{verb}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != page:
            path.write_text(page, encoding="utf-8")


def command_page(verb: str, entry: Verb) -> str:
    """Page of a verb."""
    head = f"# {verb}\n"
    if entry.help:
        return f"{head}\n{entry.purpose[0].upper()}{entry.purpose[1:]}.\n\n```text\n{entry.help.strip()}\n```\n"
    if entry.kind:
        commands = subcommands(verb).items()
        return head + "".join(f"\n## {name}\n{options(f'{verb} {name}', each)}" for name, each in commands)
    return head + options(verb, entry)


def options(verb: str, entry: Verb) -> str:
    """Description, example and options of a verb or subcommand."""
    parser = verb_parser(verb, entry.options, entry.example)
    actions = [action for action in parser._actions if action.dest != "help" and action.help != SUPPRESS]
    example = f"pyg-clusters {verb} {entry.example}".strip()
    usage = f"```text\n{parser.usage}\n```\n\nFor example\n\n```bash\n{example}\n```\n"
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
