import math

import pytest
import torch
from torch_geometric.data import Batch, Data

from pyg_clusters.pairs import shell_counts
from pyg_clusters.testing import random_clusters
from pyg_clusters.transforms import RunningCoordination
from pyg_clusters.transforms import neighbors as module


@pytest.fixture
def clusters(generator) -> list[Data]:
    z, pos, ptr = random_clusters((13, 1, 20, 2), 11, generator)
    return [Data(z=z[a:b], pos=pos[a:b]) for a, b in zip(ptr, ptr[1:], strict=False)]


def test_defaults_are_those_of_the_paper():
    transform = RunningCoordination()
    assert len(transform.radii) == 90 and transform.radii[:2] == (3.1, 3.2) and transform.radii[-1] == 12.0
    assert transform.width == 0.01
    assert str(RunningCoordination([3, 4.5], 0.1)) == "RunningCoordination(radii=[3.0, 4.5], width=0.1)"


def test_one_step_by_hand():
    dimer = Data(pos=torch.tensor([[0.0, 0, 0], [0, 0, 3.5]], dtype=torch.double))
    radii = [3.4, 3.49, 3.5, 3.52, 12.0]
    found = RunningCoordination(radii)(dimer).running_coordination
    expected = [0.5 * math.erfc(-(r - 3.5) / 0.01 / math.sqrt(2)) for r in radii]
    torch.testing.assert_close(found, torch.tensor([expected] * 2, dtype=torch.double), rtol=1e-9, atol=1e-12)


def test_narrow_steps_are_shell_counts(clusters):
    batch = Batch.from_data_list(clusters)
    transform = RunningCoordination(width=1e-9)
    within = transform(batch).running_coordination
    counts = shell_counts(batch.pos, batch.ptr, transform.radii).cumsum(dim=1)[:, :-1]
    assert within.equal(counts.double())
    assert within[:13, -1].eq(12).all() and within[13].eq(0).all()  # all neighbours; a single atom has none


def test_batch_equals_single_and_blocks_equal_one(clusters, monkeypatch):
    expected = torch.cat([RunningCoordination()(cluster).running_coordination for cluster in clusters])
    batch = Batch.from_data_list(clusters)
    assert RunningCoordination()(batch).running_coordination.equal(expected)
    monkeypatch.setattr(module, "MAX_PAIRS_AT_ONCE", 700)
    torch.testing.assert_close(RunningCoordination()(batch).running_coordination, expected)
    assert "running_coordination" not in clusters[0]


def test_gradient_in_the_positions():
    pos = torch.tensor([[0.0, 0, 0], [0, 0, 3.5], [3.4, 0, 0]], dtype=torch.double, requires_grad=True)
    transform = RunningCoordination([3.45, 4.9], width=0.1)
    assert torch.autograd.gradcheck(lambda pos: transform(Data(pos=pos)).running_coordination, pos)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="positive, finite and increasing"):
        RunningCoordination([4, 3])
    with pytest.raises(ValueError, match=r"width .* got 0"):
        RunningCoordination(width=0)
