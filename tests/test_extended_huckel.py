"""Features of atoms from an extended Hückel calculation."""

import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from torch_geometric.data import Batch

from pyg_clusters.datasets import SodiumShielding
from pyg_clusters.errors import InputError
from pyg_clusters.models import NodeSchNet, ShieldingLasso
from pyg_clusters.nn import ExtendedHuckel
from pyg_clusters.nn.extended_huckel import ENERGIES, STO_3G, ZETA, overlaps
from pyg_clusters.testing import validate_model

S_DENSITY, P_DENSITY, S_POPULATION, P_POPULATION = 0, slice(1, 4), 4, 5
PARAMAGNETIC, OWN, S_STATES, P_STATES = slice(6, 9), 9, 10, 11


@pytest.fixture(scope="module")
def clusters() -> Batch:
    """All random clusters of the data set."""
    dataset = SodiumShielding()
    return Batch.from_data_list([data for data in dataset if not data.relaxed])


def features(pos: torch.Tensor) -> torch.Tensor:
    num = len(pos)
    return ExtendedHuckel()(torch.full((num,), 11), pos, torch.zeros(num, dtype=torch.long))


def sodium(seed: int, num: int = 8) -> torch.Tensor:
    """Eight atoms on a distorted cube."""
    corners = torch.cartesian_prod(*3 * [torch.tensor([0.0, 3.6], dtype=torch.float64)])[:num]
    return corners + 0.4 * torch.randn(
        corners.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def test_atom_has_one_s_electron_and_no_paramagnetism():
    expected = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert features(torch.zeros(1, 3))[0, :10].tolist() == pytest.approx(expected, abs=1e-6)


def test_overlaps_are_those_of_pyscf():
    gto = pytest.importorskip("pyscf.gto")
    pos = sodium(0, 4)
    exponents, s, p = np.array(STO_3G)
    shells = [[0, *zip(ZETA**2 * exponents, s, strict=True)], [1, *zip(ZETA**2 * exponents, p, strict=True)]]
    atoms = [("Na", xyz) for xyz in pos.tolist()]
    mol = gto.M(atom=atoms, basis={"Na": shells}, ecp={"Na": "lanl2dz"}, unit="Angstrom", verbose=0)
    expected = (
        mol.intor("int1e_ovlp").reshape(4, 4, 4, 4).transpose(1, 0, 3, 2).reshape(16, 16)
    )  # by orbital, then atom
    np.testing.assert_allclose(overlaps(pos[None])[0].numpy(), expected, atol=1e-6)


def test_paramagnetic_tensor_is_that_of_a_sum_over_states():
    """For a closed shell with a gap much wider than kT: occupied and empty orbitals of scipy, Pople's formula."""
    pos = sodium(1)
    num, occupied = 8, 4
    overlap = overlaps(pos[None])[0].numpy()
    energy = np.repeat(ENERGIES, [num, 3 * num])
    hamiltonian = 1.75 * overlap * (energy[:, None] + energy) / 2
    np.fill_diagonal(hamiltonian, energy)
    level, orbital = scipy.linalg.eigh(hamiltonian, overlap)
    assert level[occupied] - level[occupied - 1] > 0.6
    c = orbital[num:].reshape(3, num, -1)
    angular = np.stack(
        [
            np.einsum("ip,iq->ipq", c[(a + 1) % 3], c[(a + 2) % 3])
            - np.einsum("ip,iq->ipq", c[(a + 2) % 3], c[(a + 1) % 3])
            for a in range(3)
        ]
    )[:, :, :occupied, occupied:]
    gap = level[None, occupied:] - level[:occupied, None]
    tensor = -2 * np.einsum("aipq,bpq->iab", angular, angular.sum(1) / gap)
    expected = np.linalg.eigvalsh((tensor + tensor.transpose(0, 2, 1)) / 2)
    x = features(pos).numpy()
    np.testing.assert_allclose(x[:, PARAMAGNETIC], expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(x[:, OWN], -2 / 3 * np.einsum("aipq,aipq,pq->i", angular, angular, 1 / gap), rtol=1e-4)
    density = 2 * orbital[:, :occupied] @ orbital[:, :occupied].T
    np.testing.assert_allclose(x[:, S_DENSITY], np.diag(density)[:num], rtol=1e-4)
    gross = np.diag(density @ overlap)
    np.testing.assert_allclose(x[:, S_POPULATION], gross[:num], rtol=1e-4)
    np.testing.assert_allclose(x[:, P_POPULATION], gross[num:].reshape(3, num).sum(0), rtol=1e-4)


def test_populations_sum_to_the_electrons(clusters):
    x = ExtendedHuckel()(clusters.z, clusters.pos.double(), clusters.batch)
    electrons = torch.zeros(clusters.num_graphs, dtype=torch.float64).index_add(
        0, clusters.batch, x[:, S_POPULATION] + x[:, P_POPULATION]
    )
    torch.testing.assert_close(electrons, clusters.ptr.diff().double())


@pytest.mark.parametrize("charge", [-1, 1])
def test_charge_is_that_of_the_training_set(charge):
    z, pos, batch = torch.full((8,), 11), sodium(4), torch.zeros(8, dtype=torch.long)
    neutral = ExtendedHuckel()(z, pos, batch)
    x = ExtendedHuckel()(z, pos, batch, charge=charge)
    assert float((x - neutral)[:, [S_POPULATION, P_POPULATION]].sum()) == pytest.approx(-charge)
    model = NodeSchNet(hidden_channels=16, num_filters=16, extended_huckel=True).double().eval()
    before = model.raw(z, pos).detach()
    model.domain.set_electronic_state(charge, any_spin=False)
    assert float((model.raw(z, pos).detach() - before).abs().max()) > 1e-3


@pytest.mark.parametrize("num", [7, 8])
def test_features_do_not_depend_on_orientation_and_order(num):
    pos = sodium(2, num)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    order = torch.randperm(num, generator=torch.Generator().manual_seed(0))
    x = features(pos)
    torch.testing.assert_close(features(pos @ turn + 2.0), x)
    torch.testing.assert_close(features(pos @ -turn), x)
    torch.testing.assert_close(features(pos[order]), x[order])


def test_symmetric_cluster_has_equal_atoms_although_its_levels_are_degenerate():
    cube = torch.cartesian_prod(*3 * [torch.tensor([0.0, 3.6], dtype=torch.float64)])
    x = features(cube)
    torch.testing.assert_close(x, x[:1].expand_as(x))


def test_distant_clusters_do_not_affect_each_other():
    pos = sodium(3)
    x = features(torch.cat([pos, pos + torch.tensor([60.0, 0.0, 0.0])]))
    torch.testing.assert_close(x, features(pos).repeat(2, 1))


def test_batches_of_several_sizes_equal_single_clusters():
    parts = [sodium(4, 8), sodium(5, 5), sodium(6, 8), sodium(7, 1)]
    batch = torch.arange(4).repeat_interleave(torch.tensor([8, 5, 8, 1]))
    together = ExtendedHuckel()(torch.full((22,), 11), torch.cat(parts), batch)
    torch.testing.assert_close(together, torch.cat([features(part) for part in parts]))


def test_repeated_and_changed_positions():
    """The latest result is kept; a change of the positions or of the result in place does not affect later calls."""
    pos = sodium(9)
    first = features(pos)
    latest = ExtendedHuckel._latest
    repeated = features(pos.clone())
    assert ExtendedHuckel._latest is latest
    repeated.zero_()
    assert torch.equal(features(pos), first)
    pos[0, 0] += 0.3
    changed = features(pos)
    assert not torch.allclose(changed, first)
    pos[0, 0] += 0.3
    with torch.inference_mode():
        features(pos)
    linear = torch.nn.Linear(12, 1).double()
    linear(features(pos)).sum().backward()
    torch.testing.assert_close(features(pos.float()).double(), features(pos), atol=1e-5, rtol=1e-4)


def test_gradients_are_those_of_finite_differences():
    pos = sodium(8, 5).requires_grad_()
    assert torch.autograd.gradcheck(features, (pos,), eps=1e-5, atol=1e-4)


def test_paramagnetic_part_follows_the_shieldings_of_dft(clusters):
    """Measured: 0.62; the highest correlation of a population of DFT with the shielding is 0.42 in magnitude."""
    x = ExtendedHuckel()(clusters.z, clusters.pos, clusters.batch)
    assert np.corrcoef(x[:, PARAMAGNETIC].mean(1), clusters.y)[0, 1] > 0.6


def test_other_elements_are_refused():
    with pytest.raises(InputError, match="for Na only, not for K"):
        ExtendedHuckel()(torch.tensor([11, 19]), torch.eye(3)[:2] * 4, torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize("wrong", [float("nan"), 3.6])
def test_features_of_invalid_clusters_are_nan(wrong):
    """An atom without a valid position, or at that of another one; the other cluster of the batch is not affected."""
    valid, invalid = sodium(4), torch.tensor([[0.0, 0.0, 3.6], [0.0, 0.0, wrong]], dtype=torch.float64)
    batch = torch.arange(2).repeat_interleave(torch.tensor([8, 2]))
    x = ExtendedHuckel()(torch.full((10,), 11), torch.cat([valid, invalid]), batch)
    torch.testing.assert_close(x[:8], features(valid))
    assert x[8:].isnan().all()


def test_tracing_is_refused():
    """It would record the features of the example as constants."""
    example = torch.tensor([11, 11]), torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 3.6]]), torch.tensor([0, 0])
    for module in (ExtendedHuckel(), NodeSchNet(hidden_channels=16, num_filters=16, extended_huckel=True)):
        with warnings.catch_warnings(), pytest.raises(NotImplementedError, match="cannot be exported or traced"):
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            torch.jit.trace(module, example)
        with pytest.raises(NotImplementedError, match="cannot be exported or traced"):
            torch.export.export(module, example)


def test_node_schnet_in_single_precision_accepts_positions_in_double():
    model = NodeSchNet(hidden_channels=16, num_filters=16, extended_huckel=True).eval()
    z, pos = torch.full((8,), 11), sodium(4)
    torch.testing.assert_close(model.raw(z, pos), model.raw(z, pos.float()), atol=1e-4, rtol=1e-4, check_dtype=False)


def test_node_schnet_with_these_features_fulfils_the_contract():
    model = NodeSchNet(hidden_channels=16, num_filters=16, extended_huckel=True)
    validate_model(model, atomic_number=11, per_atom=True)
    with pytest.raises(ValueError, match="extended_huckel needs positions"):
        model(torch.tensor([11]), None, edge_index=torch.zeros(2, 0, dtype=torch.long), edge_weight=torch.zeros(0))


def test_lasso_on_these_features_has_two_thirds_of_the_error_of_coordination_numbers(clusters):
    """Measured on the last 30 clusters: 18.8 and 33.8 ppm."""
    parts = [Batch.from_data_list(clusters[part]) for part in (slice(0, 50), slice(50, 64), slice(64, None))]
    test, rmse = parts[2], {}
    for variables in ("coordination", "huckel"):
        lasso = ShieldingLasso(variables)
        lasso.fit(*parts[:2])
        error = lasso(test.z, test.pos, test.batch).detach() - test.y
        rmse[variables] = float(error.square().mean().sqrt())
    assert rmse["huckel"] < 2 / 3 * rmse["coordination"], rmse
    assert not lasso.needs_dft
