"""Weights that a module holds under two names."""

from torch import nn


def save_shared_weights_once(module: nn.Module):
    """Leaves the second name of a weight out of the state dict of a module, and fills it in again on loading.

    PyG's ``InteractionBlock`` holds its filter network as ``mlp`` and as ``conv.nn``; safetensors refuses tensors that
    share memory.
    """
    module.register_state_dict_post_hook(_drop_second_names)
    module.register_load_state_dict_pre_hook(_restore_second_names)


def second_names(module: nn.Module) -> dict[str, str]:
    """Names under which a weight comes again, each with the name under which it comes first."""
    first: dict[int, str] = {}
    second = {}
    for name, weight in module.named_parameters(remove_duplicate=False):
        if id(weight) in first:
            second[name] = first[id(weight)]
        first.setdefault(id(weight), name)
    return second


def _drop_second_names(module: nn.Module, state: dict, prefix: str, *_):
    for name in second_names(module):
        state.pop(prefix + name, None)


def _restore_second_names(module: nn.Module, state: dict, prefix: str, *_):
    for name, first in second_names(module).items():
        if prefix + first in state:
            state.setdefault(prefix + name, state[prefix + first])
