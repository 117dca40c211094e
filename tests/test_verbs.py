"""The table of the verbs: its functions exist, and its examples can be parsed."""

import shlex
from importlib import import_module

import pytest

from pyg_clusters.cli import main_verbs, subcommands
from pyg_clusters.options import VERBS
from pyg_clusters.options.parsing import command_words, parse_options


@pytest.mark.parametrize("name", [name for name, verb in VERBS.items() if not verb.kind])
def test_functions_of_a_verb_exist(name):
    module, _, function = VERBS[name].function.rpartition(".")
    assert callable(getattr(import_module(module), function))


@pytest.mark.parametrize("name", [name for name, verb in VERBS.items() if verb.options])
def test_example_of_a_verb_is_a_command_of_it(name):
    """The parsed options give the command of the example again, possibly in another order."""
    verb = VERBS[name]
    options = parse_options(name, verb.options, verb.example, shlex.split(verb.example))
    again = command_words(options)[1 + len(name.split()) :]
    assert parse_options(name, verb.options, verb.example, again) == options


def test_subcommands_belong_to_a_verb_that_names_their_kind():
    assert {name.split()[0] for name in VERBS if " " in name} == {name for name, verb in VERBS.items() if verb.kind}
    assert list(subcommands("label")) == ["shielding", "prescreen", "energy"] and "label energy" not in main_verbs()
