import csv
import doctest
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import DimeNetPlusPlus, GATv2Conv, GCNConv, SchNet, ViSNet
from torch_geometric.nn.models import dimenet
from torch_geometric.nn.models.schnet import InteractionBlock
from torch_geometric.utils import scatter

from pyg_clusters.cli import main
from pyg_clusters.datasets import GalliumClusters
from pyg_clusters.datasets.splits import Split
from pyg_clusters.errors import InputError
from pyg_clusters.geometry import batch_to_ptr, ptr_to_batch
from pyg_clusters.inference import Predictor
from pyg_clusters.models import LayeredModel, load_model
from pyg_clusters.models.checkpoint import save_model
from pyg_clusters.nn import GraphKind, LayerAdapter, ShellConv, WholeModel
from pyg_clusters.options.training import ReproduceLayersOptions
from pyg_clusters.pairs import radius_pairs
from pyg_clusters.papers import layers
from pyg_clusters.shipped import shipped_recipe
from pyg_clusters.testing import random_clusters, validate_model
from pyg_clusters.transforms import RadiusGraph, ShellGraph, TopologicalDescriptor

PAGE = Path(__file__).parents[1] / "docs/how_to/layers.md"
PYG, SCHNET = "torch_geometric.nn.", "torch_geometric.nn.models.schnet."
LAYERS = {
    **{
        name: PYG + name
        for name in (
            *("GCNConv", "SAGEConv", "GINEConv", "GATv2Conv", "TransformerConv", "NNConv", "RGCNConv", "RGATConv"),
            *("FiLMConv", "GeneralConv"),
        )
    },
    "CFConv": SCHNET + "CFConv",
    "InteractionBlock": SCHNET + "InteractionBlock",
    "ShellConv": "pyg_clusters.nn.ShellConv",
}
WHOLE = {
    "SchNet": {},
    "DimeNetPlusPlus": {"num_spherical": 2, "num_radial": 2, "output_initializer": "glorot_orthogonal"},
    "ViSNet": {},
}
LINEAR = {"class_path": "torch.nn.Linear", "init_args": {"in_features": 8, "out_features": 8}}
KIND = GraphKind(channels=8, num_shells=3, cutoff=5.0, num_gaussians=6)
SIZES = (13, 1, 2, 9)


def make(conv, **arguments) -> LayeredModel:
    torch.manual_seed(0)
    tiny = {"num_layers": 2, "hidden_channels": 8, "num_gaussians": 6, "cutoff": 5.0}
    return LayeredModel(conv, **tiny | arguments)


@pytest.fixture
def clusters(generator):
    z, pos, ptr = random_clusters(SIZES, 31, generator)
    return z, pos, ptr_to_batch(ptr)


@pytest.mark.parametrize("name", LAYERS)
def test_physics_of_every_layer(name):
    validate_model(make(LAYERS[name]), sizes=SIZES)


@pytest.mark.parametrize("name", ["GATv2Conv", "RGCNConv", "InteractionBlock"])
def test_physics_of_shieldings(name):
    model = make(LAYERS[name], target="shielding", radii=(4.6, 7.8))
    validate_model(model, sizes=SIZES, atomic_number=11, per_atom=True)


@pytest.mark.parametrize("embedding", ["tad", "element"])
def test_physics_of_embeddings(embedding):
    validate_model(make("torch_geometric.nn.GINEConv", embedding=embedding), sizes=SIZES)


@pytest.mark.parametrize("name", WHOLE)
def test_physics_of_whole_models(name):
    validate_model(make(PYG + name, conv_args=WHOLE[name]), sizes=SIZES)


def brute_pairs(pos: Tensor, batch: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    """Pairs j → i by loops, and their distances."""
    found = [
        (j, i, float((pos[j] - pos[i]).norm()))
        for i in range(len(batch))
        for j in range(len(batch))
        if i != j and batch[i] == batch[j] and float((pos[j] - pos[i]).norm()) < cutoff
    ]
    return torch.tensor([pair[:2] for pair in found]).T, torch.tensor([pair[2] for pair in found], dtype=pos.dtype)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_gets_the_graph_that_pyg_means(name, clusters):
    """Comparison with a direct call of the PyG layer, on a graph built by a loop over the atoms."""
    z, pos, batch = clusters
    model = make(LAYERS[name], num_layers=1, embedding="element").double().eval()
    edge_index, distance = brute_pairs(pos, batch, 5.0)
    gaussians = model.distance_expansion(distance)
    closeness = (torch.cos(torch.pi * distance / 5.0) + 1) / 2
    shell = (distance >= 3.49).long() + (distance > 6.3).long()
    handed = {
        "GCNConv": (closeness,),
        "SAGEConv": (),
        "RGCNConv": (shell,),
        "FiLMConv": (shell,),
        "ShellConv": (shell,),
        "RGATConv": (shell, gaussians),
        "CFConv": (distance, gaussians),
        "InteractionBlock": (distance, gaussians),
    }.get(name, (gaussians,))
    h = model.element_embedding(z)
    out = model.convs[0](h, edge_index, *handed)
    h = h + torch.nn.functional.silu(model.norms[0](out))
    raw = model.head(h).squeeze(-1)
    expected = scatter(raw, batch, reduce="sum") * model.scale.scale
    assert expected.std() > 1e-4
    torch.testing.assert_close(model(z, pos, batch), expected, rtol=1e-10, atol=1e-12)


def test_far_clusters_have_additive_energies(clusters):
    z, pos, batch = clusters
    model = make("torch_geometric.nn.GINEConv", embedding="element").double().eval()
    apart = pos + 100.0 * batch[:, None]
    together = model(z, apart, torch.zeros_like(batch))
    torch.testing.assert_close(together, model(z, pos, batch).sum(0, keepdim=True), rtol=1e-10, atol=1e-10)


def test_offset_and_scale_are_those_of_the_energies(clusters):
    z, pos, batch = clusters
    model = make("torch_geometric.nn.GATv2Conv").double().eval()
    sizes = torch.tensor(SIZES, dtype=torch.double)
    before = model(z, pos, batch)
    model.scale.fit(z, batch_to_ptr(batch), -2.4 * sizes)
    torch.testing.assert_close(model(z, pos, batch) - before, -2.4 * sizes, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("conv", ["torch_geometric.nn.GINEConv", "torch_geometric.nn.RGCNConv"])
def test_edges_and_counts_that_are_there_give_the_same(conv, clusters):
    z, pos, batch = clusters
    ptr = batch_to_ptr(batch)
    model = make(conv).double().eval()
    expected = model(z, pos, batch)
    edge_index, edge_weight = radius_pairs(pos, ptr, 7.0)  # without pairs beyond the cutoff
    torch.testing.assert_close(model(z, pos, batch, edge_index=edge_index, edge_weight=edge_weight), expected)
    torch.testing.assert_close(model(z, pos, batch, edge_index=edge_index), expected)
    squared = (pos[:, None] - pos).square().sum(-1)
    mine = batch[:, None] == batch
    within = [(squared < radius**2) & mine for radius in (3.49, 6.3)]
    inner, both, everything = (mask.sum(1) - 1 for mask in (*within, mine))
    counts = torch.stack([inner, both - inner, everything - both], dim=1)
    torch.testing.assert_close(model(z, pos, batch, x=counts), expected)
    given = (
        model(z, None, batch, x=counts, edge_index=edge_index, edge_weight=edge_weight) if "GIN" in conv else expected
    )
    torch.testing.assert_close(given, expected)
    with pytest.raises(InputError, match="counts in 3 shells are needed for each atom, got 1"):
        model(z, pos, batch, x=counts[:, :1])
    with pytest.raises(InputError, match="needs distances: give pos or edge_weight"):
        model(z, None, batch, edge_index=edge_index)
    with pytest.raises(InputError, match="needs positions, or edges"):
        model(z, None, batch)


def test_a_shell_graph_alone_is_enough_without_a_cutoff(clusters):
    z, pos, batch = clusters
    model = make(ShellConv, cutoff=None).double().eval()
    expected = model(z, pos, batch)
    data = ShellGraph()(Data(z=z, pos=pos, batch=batch))
    given = model(z, None, batch, edge_index=data.edge_index, edge_type=data.edge_type)
    torch.testing.assert_close(given, expected, rtol=1e-12, atol=1e-12)
    near = data.edge_index[:, data.edge_type == 0]  # of some edges the counts are not those of the positions
    some = model(z, pos, batch, edge_index=near)
    torch.testing.assert_close(some, model(z, pos, batch, x=TopologicalDescriptor()(data).x, edge_index=near))


@pytest.mark.parametrize("name", WHOLE)
def test_whole_models_equal_those_of_pyg_without_their_cap(name, monkeypatch):
    """All 40 atoms around a central one count, as in PyG's model with an unlimited neighbour list."""
    generator = torch.Generator().manual_seed(1)
    direction = torch.randn(40, 3, generator=generator, dtype=torch.double)
    shell = 4.0 * direction / direction.norm(dim=1, keepdim=True)
    pos = torch.cat([torch.zeros(1, 3, dtype=torch.double), shell, shell[:3] + 50.0])
    z, batch = torch.full((44,), 31), torch.tensor([0] * 41 + [1] * 3)
    model = make(PYG + name, conv_args=WHOLE[name], cutoff=4.5).double().eval()
    found = model(z, pos, batch) / model.scale.scale

    def radius_graph(pos, r, batch, loop=False, max_num_neighbors=32):
        edge_index = brute_pairs(pos, batch, r)[0]
        loops = torch.arange(len(batch)).expand(2, -1)
        return torch.cat([edge_index, loops], dim=1) if loop else edge_index

    if name == "SchNet":
        pairs = lambda pos, batch: brute_pairs(pos, batch, 4.5)  # noqa: E731
        reference = SchNet(8, 8, 2, 6, 4.5, interaction_graph=pairs).double()
    elif name == "ViSNet":
        monkeypatch.setattr("torch_geometric.nn.models.visnet.radius_graph", radius_graph)
        reference = ViSNet(hidden_channels=8, num_layers=2, num_rbf=6, cutoff=4.5).double()
    else:
        monkeypatch.setattr(dimenet, "radius_graph", radius_graph)
        monkeypatch.setattr(dimenet, "triplets", brute_triplets)
        sizes = {"int_emb_size": 4, "basis_emb_size": 8, "out_emb_channels": 8}
        reference = DimeNetPlusPlus(8, 1, 2, cutoff=4.5, **sizes, **WHOLE[name]).double()
    reference.load_state_dict(model.whole.model.state_dict())
    if name == "ViSNet":  # PyG's model cannot be run in double precision
        reference, pos = reference.float(), pos.float()
    with torch.no_grad():
        out = reference.eval()(z, pos, batch)
    expected = (out[0] if isinstance(out, tuple) else out).flatten().double()
    assert abs(expected[0] - 41 / 3 * expected[1]) > 1e-3
    tolerance = 1e-4 if name == "ViSNet" else 1e-9
    torch.testing.assert_close(found.detach(), expected, rtol=tolerance, atol=tolerance)


def brute_triplets(edge_index, num_nodes):
    j, i = edge_index
    pairs = [(kj, ji) for ji in range(len(i)) for kj in (i == j[ji]).nonzero().flatten().tolist() if j[kj] != i[ji]]
    kj, ji = torch.tensor(pairs).T
    return i, j, i[ji], j[ji], j[kj], kj, ji


def test_atoms_of_a_whole_model_for_shieldings(clusters):
    z, pos, batch = clusters
    model = make(PYG + "SchNet", target="shielding").double().eval()
    assert model(z, pos, batch).shape == z.shape
    validate_model(model, sizes=SIZES, per_atom=True)


class SchNetBlock(nn.Module):
    """A layer that stores its cutoff, as PyG's CFConv does."""

    def __init__(self, cutoff):
        super().__init__()
        self.cutoff = cutoff

    def forward(self, x, edge_weight):
        return x


@pytest.mark.parametrize(
    ("conv", "arguments", "message"),
    [
        ("GATv2Conv", {}, r"no class 'GATv2Conv' can be imported .*did you mean torch_geometric\.nn\.GATv2Conv\?"),
        ("torch_geometric.nn.GATConvv2", {}, "no class .* can be imported"),
        ("no_such_package.Layer", {}, "no class 'no_such_package.Layer' can be imported"),
        ("os.getcwd", {}, r"os\.getcwd is not a subclass of torch\.nn\.Module"),
        ("os.PathLike", {}, r"os\.PathLike is not a subclass of torch\.nn\.Module"),
        (PYG + "GATv2Conv", {"conv_args": {"head": 2}}, "GATv2Conv has no argument 'head'; did you mean 'heads'"),
        (PYG + "GATv2Conv", {"conv_args": {"heads": 2}}, "16 features per atom, the model has 8: .*out_channels: 4"),
        (PYG + "GCNConv", {"conv_args": {"out_channels": 7}}, "GCNConv returns 7 features per atom, the model has 8"),
        (PYG + "GINEConv", {"cutoff": None}, "it takes edge_attr, Gaussians of the distance: give the model a cutoff"),
        (PYG + "PDNConv", {"cutoff": None}, "PDNConv needs a cutoff"),
        (SCHNET + "CFConv", {"cutoff": None}, "CFConv needs a cutoff"),
        (PYG + "SchNet", {"cutoff": None}, "SchNet needs a cutoff"),
        (
            SCHNET + "CFConv",
            {"conv_args": {"cutoff": 4.0}},
            "has a cutoff of 4.0 Å, but the graph has a cutoff of 5.0 Å",
        ),
        (PYG + "PPFConv", {}, "PPFConv needs 'normal', which the graph does not have: wrap the layer"),
        (PYG + "PNAConv", {}, "PNAConv needs its argument 'aggregators': give it in conv_args"),
        (PYG + "RGATConv", {"conv_args": {"attention_mode": "no"}}, "RGATConv cannot be created: ValueError"),
        (PYG + "SchNet", {"conv_args": {"dipole": True}}, "leave dipole out"),
        (PYG + "ViSNet", {"conv_args": {"derivative": True}}, "leave derivative out"),
        ({"class": PYG + "GCNConv"}, {}, "conv must have class_path and init_args, got class"),
        (3, {}, "conv must be a layer, its class, or the import path of its class, got 3"),
        (PYG + "GCNConv", {"transform": True}, "transform is for shieldings"),
        (SchNetBlock(6.0), {"cutoff": None}, "has a cutoff of 6.0 Å, but the graph has no cutoff"),
        (GCNConv(8, 8), {"conv_args": {"bias": False}}, "conv_args need a class, but GCNConv is an instance"),
        (PYG + "GCNConv", {"num_layers": 0}, "num_layers must be at least 1, got 0"),
        (PYG + "GCNConv", {"target": "charge"}, "target must be 'energy' or 'shielding', got 'charge'"),
    ],
    ids=str,
)
def test_unusable_layers_are_refused_in_one_line(conv, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        make(conv, **arguments)
    assert "\n" not in str(caught.value)


def test_ways_to_name_a_layer_are_equivalent(clusters):
    z, pos, batch = clusters
    arguments = {"heads": 2, "concat": False}
    named = make(PYG + "GATv2Conv", conv_args=arguments)
    given = make(GATv2Conv, conv_args=arguments)
    mapped = make({"class_path": PYG + "GATv2Conv", "init_args": arguments})
    instance = make(GATv2Conv(8, 8, heads=2, concat=False, edge_dim=6))
    for model in (given, mapped, instance):
        model.load_state_dict(named.state_dict())
        pos_single = pos.float()
        assert model(z, pos_single, batch).equal(named(z, pos_single, batch))
    first, second = instance.convs
    assert not first.lin_l.weight.equal(make(GATv2Conv(8, 8)).convs[1].lin_l.weight)
    assert first.lin_l.weight is not second.lin_l.weight


@pytest.mark.parametrize("conv", [PYG + "GATv2Conv", PYG + "SchNet"])
def test_reset_is_as_new(clusters, conv):
    z, _, batch = clusters
    model, other = make(conv), make(conv)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(1.0)
    model.scale.fit(z, batch_to_ptr(batch), -2.4 * torch.tensor(SIZES))
    for each in (model, other):
        torch.manual_seed(3)
        each.reset_parameters()
    for name, tensor in model.state_dict().items():
        assert tensor.equal(other.state_dict()[name]), name


def test_arguments_of_a_module_within_a_layer(tmp_path, clusters):
    z, pos, batch = clusters
    network = {"class_path": "torch_geometric.nn.MLP", "init_args": {"channel_list": [8, 4, 8], "norm": None}}
    model = make(PYG + "GINEConv", conv_args={"nn": network, "edge_dim": 6})
    assert model.convs[0].nn.channel_list == [8, 4, 8]
    assert model.convs[0].nn is not model.convs[1].nn
    save_model(model.double(), tmp_path)
    assert load_model(tmp_path)(z, pos, batch).equal(model.eval()(z, pos, batch))


@pytest.mark.parametrize("conv", [PYG + "GATv2Conv", SCHNET + "InteractionBlock", PYG + "SchNet"])
def test_saved_and_loaded(tmp_path, clusters, conv):
    z, pos, batch = clusters
    model = make(conv, conv_args={"negative_slope": 0.1} if "GAT" in conv else None)
    model.scale.fit(z, batch_to_ptr(batch), -2.0 * torch.tensor(SIZES))
    model.domain.fit(z, batch_to_ptr(batch))
    save_model(model, tmp_path)
    assert json.loads((tmp_path / "model.json").read_text())["init_args"]["conv"] == conv
    loaded = load_model(tmp_path)
    assert str(loaded) == str(model)
    assert loaded(z, pos.float(), batch).equal(model.eval()(z, pos.float(), batch))
    assert loaded.domain.atomic_numbers == [31]


def test_a_file_that_names_anything_but_a_layer_is_refused(tmp_path):
    save_model(make(PYG + "GCNConv"), tmp_path)
    file = tmp_path / "model.json"
    file.write_text(file.read_text().replace(PYG + "GCNConv", "os.system"))
    with pytest.raises(InputError, match=r"names os\.system, .* add --trust"):
        load_model(tmp_path)
    with pytest.raises(InputError, match=r"os\.system is not a subclass of torch\.nn\.Module"):
        load_model(tmp_path, trust=True)
    save_model(make(PYG + "GINEConv", conv_args={"nn": LINEAR}), tmp_path)
    file.write_text(file.read_text().replace("torch.nn.Linear", "subprocess.Popen"))
    with pytest.raises(InputError, match=r"names subprocess\.Popen, .* add --trust"):
        load_model(tmp_path)


def test_unsavable_models_raise_an_error(tmp_path):
    class Local(GCNConv):
        pass

    with pytest.raises(TypeError, match=r"of an instance cannot be saved.*give the class"):
        save_model(make(GCNConv(8, 8)), tmp_path)
    with pytest.raises(TypeError, match="cannot be imported: define the class at the top of a module"):
        save_model(make(Local), tmp_path)
    with pytest.raises(TypeError, match=r"name modules as \{class_path"):
        save_model(make(PYG + "GINEConv", conv_args={"nn": nn.Linear(8, 8)}), tmp_path)


def test_adapter_distinguishes_distance_from_closeness():
    """A custom layer requests distances as SchNet's layers do: by a cutoff in its constructor."""

    class Near(nn.Module):
        def forward(self, x, edge_weight):
            return x + edge_weight.mean()

    class Far(Near):
        def __init__(self, cutoff):
            super().__init__()
            self.cutoff = cutoff

    assert not LayerAdapter(Near, {}, KIND).takes_distance
    assert LayerAdapter(Far, {}, KIND).takes_distance and LayerAdapter(Far, {}, KIND).make().cutoff == 5.0
    assert LayerAdapter(InteractionBlock, {}, KIND).inputs == ("edge_index", "edge_weight", "edge_attr")
    assert LayerAdapter(GATv2Conv, {"edge_dim": None}, KIND).inputs == ("edge_index",)


def test_a_model_that_is_not_a_complete_one_of_pyg():
    class Other(nn.Module):
        def forward(self, z, pos, batch):
            return pos.sum()

    with pytest.raises(InputError, match="its pairs cannot be replaced: SchNet, DimeNet, DimeNetPlusPlus and ViSNet"):
        WholeModel(Other())


def test_predictors(clusters):
    z, pos, batch = clusters
    ptr = batch_to_ptr(batch)
    model = make(PYG + "GINEConv")
    found = Predictor(model)(z, pos, ptr).energy
    torch.testing.assert_close(found, model(z, pos.float(), batch), rtol=1e-4, atol=1e-5)
    by_graphs = Predictor(model, transform=RadiusGraph(5.0))(z, pos, ptr).energy
    torch.testing.assert_close(by_graphs, found, rtol=1e-4, atol=1e-5)
    per_atom = make(PYG + "GINEConv", target="shielding")
    assert Predictor(per_atom)(z, pos, ptr).shielding.shape == z.shape


def test_forces_are_the_slope_of_the_energy():
    torch.manual_seed(0)
    model = make(SCHNET + "InteractionBlock", embedding="element").double().eval()
    z, batch = torch.tensor([31, 31, 31]), torch.tensor([0, 0, 0])
    pos = torch.tensor([[0.0, 0, 0], [2.7, 0, 0], [1.0, 2.5, 0]], dtype=torch.double, requires_grad=True)
    (slope,) = torch.autograd.grad(model(z, pos, batch).sum(), pos)
    step = torch.zeros_like(pos)
    step[1, 0] = 1e-5
    difference = (model(z, pos + step, batch) - model(z, pos - step, batch)) / 2e-5
    assert abs(float(slope[1, 0])) > 1e-5
    torch.testing.assert_close(slope[1, 0], difference[0], rtol=1e-5, atol=1e-9)


@pytest.fixture
def own_layers(tmp_path, monkeypatch):
    """The layer of the how-to, in a file of the current folder."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (code,) = [block for block in blocks if "class DistanceGate" in block]
    (tmp_path / "my_layers.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("my_layers", None)


def test_the_how_to_is_right(own_layers, monkeypatch):
    monkeypatch.syspath_prepend(Path.cwd())
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    done = doctest.testfile(str(PAGE), module_relative=False, optionflags=flags)
    assert done.failed == 0 and done.attempted >= 9


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["layered_gallium.yaml", "layered_sodium.yaml"])
def test_own_layer_in_a_recipe(own_layers, recipe):
    model = "--model.model.init_args" if "gallium" in recipe else "--model.init_args.model.init_args"
    options = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "3", "--trainer.limit_val_batches", "1"]
    options += [f"{model}.conv", "my_layers.DistanceGate", f"{model}.conv_args", "{}"]
    assert main(["train", "--config", str(shipped_recipe(recipe)), "--out", "run", *options]) == 0
    with pytest.raises(InputError, match=r"model.json names my_layers.DistanceGate, .* add --trust"):
        load_model("run")
    assert load_model("run", trust=True).conv == "my_layers.DistanceGate"
    assert main(["train", "--resume", "run"]) == main(["evaluate", "run"]) == 2
    assert main(["train", "--resume", "run", "--trust"]) == main(["evaluate", "run", "--trust"]) == 0


def write_run(folder, name, target, fold, mae):
    """The files of a finished run of a tiny model that the comparison reads."""
    run = folder / layers.folder_name(name, target, fold)
    layer = layers.LAYERS[name]
    cutoff = None if layer.every_pair else 5.0
    model = make(layer.conv, conv_args=layer.conv_args, cutoff=cutoff, target=target)
    save_model(model, run / "best")
    Split(torch.arange(8), torch.arange(8, 10), torch.arange(10, 14)).save(run / "splits")
    unit = "kcal_mol" if target == "energy" else "ppm"
    metrics = {"overall": {f"mae_{unit}": mae, f"rmse_{unit}": 2 * mae}}
    (run / "test_metrics.json").write_text(json.dumps(metrics))
    (run / "finished.json").write_text('{"seconds": 10.0}')


@pytest.mark.figures
def test_layers_are_compared(tmp_path, capsys):
    names = ["GCNConv", "ShellConv"]
    for name, mae in zip(names, (6.0, 4.0), strict=True):
        write_run(tmp_path / "full", name, "energy", 0, mae)
        for fold in range(2):
            write_run(tmp_path / "full", name, "shielding", fold, mae + fold)
    arguments = ["reproduce", "layers", "--only", *names, "--folds", "2", "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert "6 training runs, 6 of them already finished" in capsys.readouterr().out
    header, *lines = csv.reader((tmp_path / "results.csv").read_text().splitlines())
    rows = {(line[0], line[1]): dict(zip(header, line, strict=True)) for line in lines}
    assert rows["energy", "GCNConv"]["MAE"] == "6.00" and rows["shielding", "ShellConv"]["MAE"] == "4.50 ± 0.71"
    assert rows["energy", "ShellConv"]["edges"] == "all, by shell"
    parameters = sum(weight.numel() for weight in make(PYG + "GCNConv").parameters())
    assert rows["energy", "GCNConv"]["parameters"] == f"{parameters:,}"
    assert all(float(row["seconds per epoch"]) > 0 for row in rows.values())
    assert (tmp_path / "error_against_speed.png").stat().st_size > 10_000
    assert main([*arguments[:3], "NoConv", "--out", str(tmp_path)]) == 2
    assert main([*arguments, "--epochs", "0"]) == 2
    assert "--epochs must be at least 1, got 0" in capsys.readouterr().err


def test_measuring_the_speed_leaves_the_model_as_it_was(clusters):
    z, pos, batch = clusters
    model = make(PYG + "GINEConv").eval()
    before = model(z, pos.float(), batch)
    dataset = GalliumClusters()[:4]
    layers.epoch_seconds(model, dataset, Split(torch.arange(2), torch.arange(2, 3), torch.arange(3, 4)))
    assert model.eval()(z, pos.float(), batch).equal(before)


def test_every_layer_has_training_runs_and_the_ten_are_among_them():
    options = ReproduceLayersOptions(epochs=7, folds=2, out="x")
    made = layers.trainings(layers.TEN, layers.TARGETS, options)
    assert len(layers.TEN) == 10 and len(made) == 30 and len({training.name for training in made}) == 30
    with pytest.raises(InputError, match="--folds must be from 1 to 5, got 6"):
        ReproduceLayersOptions(folds=6, out="x")


@pytest.mark.parametrize("target", layers.TARGETS)
def test_layers_that_distinguish_shells_are_trained_on_every_pair(target, tmp_path):
    options = {"train_clusters": 20, "epochs": 1, "shielding_epochs": 1, "folds": 1, "channels": 8, "num_layers": 1}
    (training,) = layers.trainings(["RGCNConv"], [target], ReproduceLayersOptions(**options, out="x"))
    assert main([*training.arguments(tmp_path), "--trainer.logger", "false"]) == 0
    run = tmp_path / training.name
    assert load_model(run).cutoff is None and load_model(run).hidden_channels == 8
    assert "cutoff: null" in (run / "config.yaml").read_text()  # so the run is resumed
