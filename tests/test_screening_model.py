"""Training data of the model for screening."""

from pathlib import Path

import pytest
import torch
import yaml

from pyg_clusters.datasets import ClusterDataset, GalliumClusters
from pyg_clusters.errors import InputError
from pyg_clusters.training import ClusterDataModule

RECIPE = Path(__file__).parents[1] / "train" / "dart_gallium_screening.yaml"
QUENCHED = "quench_binding_energy"


@pytest.fixture(scope="module")
def both() -> GalliumClusters:
    return GalliumClusters(subset="quench_minima", target=QUENCHED)


@pytest.mark.slow
def test_a_minimum_quenches_to_itself(both):
    hot, minima = GalliumClusters(subset="md_quench", target=QUENCHED), GalliumClusters()
    assert (len(hot), len(minima)) == (7400, 6030)
    assert torch.equal(both._data.y, torch.cat([hot._data.y, minima._data.y]))
    assert torch.equal(both.sizes, torch.cat([hot.sizes, minima.sizes]))
    assert torch.equal(hot._data.y, hot._data.quench_binding_energy)
    assert (GalliumClusters(subset="md_quench")._data.y > hot._data.y).all()


def test_own_energies_of_both():
    own = GalliumClusters(subset="quench_minima")
    assert torch.equal(own._data.y[:7400], GalliumClusters(subset="md_quench")._data.y)
    with pytest.raises(InputError, match="has no target 'quench_binding_energy'"):
        GalliumClusters(subset="forces_minima", target=QUENCHED)


def test_no_structure_of_the_screened_sizes_is_seen(both):
    recipe = yaml.safe_load(RECIPE.read_text())["data"]
    assert recipe["left_out_sizes"] == [46, 57, 60]
    arguments = {key: value for key, value in recipe.items() if key != "dataset"}
    for dataset in (both, GalliumClusters(**recipe["dataset"]["init_args"])):
        split = ClusterDataModule(dataset, **arguments).split
        parts = [split.train, split.val, split.test]
        assert not torch.isin(dataset.sizes[torch.cat(parts)], torch.tensor([46, 57, 60])).any()
        groups = [set(dataset.groups[part].tolist()) for part in parts]
        assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]


def test_files_of_minima_with_a_target_of_their_own(tmp_path):
    frame = '2\nProperties=species:S:1:pos:R:3 {}={} pbc="F F F"\nGa 0 0 0\nGa 0 0 2.7\n'
    hot, minima = tmp_path / "hot.extxyz", tmp_path / "minima.extxyz"
    hot.write_text(frame.format("quenched", -3.0))
    minima.write_text(frame.format("own", -5.0))
    files = [hot, minima]
    dataset = ClusterDataset(tmp_path, files, target="quenched", minima=[minima], minima_target="own")
    assert dataset._data.y.tolist() == [-3.0, -5.0]
    with pytest.raises(InputError, match="own"):
        ClusterDataset(tmp_path, files, target="quenched", minima=files, minima_target="own")
