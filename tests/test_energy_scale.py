import copy
import warnings

import pytest
import torch

from pyg_clusters.errors import InputError
from pyg_clusters.models import DART, NodeSchNet, load_model, save_model
from pyg_clusters.nn import EnergyScale, ShieldingScale
from pyg_clusters.nn.output_scale import fit_references, in_needed_precision, shift_of_references


def mixed() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Na2, Ga1, Na1Ga2 with -1.5 eV per Na and -2.5 eV per Ga."""
    z = torch.tensor([11, 11, 31, 11, 31, 31])
    return z, torch.tensor([0, 2, 3, 6]), torch.tensor([-3.0, -2.5, -6.5])


def test_the_raw_output_is_in_kcal_per_mol_until_it_is_fitted():
    scale = EnergyScale()
    z = torch.tensor([31, 31])
    # 23.060548 kcal/mol are one eV.
    torch.testing.assert_close(scale(torch.tensor([23.060548, -46.121096]), z), torch.tensor([1.0, -2.0]))
    assert str(scale) == "EnergyScale(scale=0.0433641 eV, offset={} eV)"


def test_references_by_least_squares():
    z, ptr, energy = mixed()
    references = fit_references(z, ptr, energy)
    assert list(references) == [11, 31]
    assert list(references.values()) == pytest.approx([-1.5, -2.5], abs=1e-10)

    # One element, three atoms in two clusters: the slope of the line through the origin, Σ N E / Σ N².
    references = fit_references(torch.full((3,), 31), torch.tensor([0, 1, 3]), torch.tensor([-2.0, -5.0]))
    assert references[31] == pytest.approx((1 * -2.0 + 2 * -5.0) / (1 + 4))


def test_indistinguishable_elements_share_the_offset_equally():
    # Every cluster is NaGa with -4 eV: the solution of the smallest norm is -2 and -2.
    z, ptr = torch.tensor([11, 31, 11, 31]), torch.tensor([0, 2, 4])
    assert fit_references(z, ptr, torch.tensor([-4.0, -4.0])) == {11: pytest.approx(-2.0), 31: pytest.approx(-2.0)}


def test_offset_of_each_element():
    z, ptr, energy = mixed()
    scale = EnergyScale()
    scale.fit(z, ptr, energy)
    offsets = [-1.5, -1.5, -2.5, -1.5, -2.5, -2.5]
    torch.testing.assert_close(scale(torch.zeros(6), z), torch.tensor(offsets))
    assert "11: -1.5" in str(scale)
    assert "31: -2.5" in str(scale)


def test_one_composition_does_not_determine_the_energies_of_its_elements():
    """NaGa alone determines only the sum of the energies of Na and Ga; together with Na2Ga it determines both."""
    z, ptr = torch.tensor([11, 31, 11, 31]), torch.tensor([0, 2, 4])
    with pytest.warns(UserWarning, match="do not determine the energies of Na, Ga separately"):
        EnergyScale().fit(z, ptr, torch.tensor([-4.0, -4.1]))
    EnergyScale().fit(torch.tensor([11, 31, 11, 11, 31]), torch.tensor([0, 2, 5]), torch.tensor([-4.0, -5.5]))
    EnergyScale().fit(torch.tensor([31, 31, 31, 31]), ptr, torch.tensor([-5.0, -5.1]))


def test_a_new_fit_forgets_the_old_one():
    scale = EnergyScale()
    scale.fit(*mixed())
    scale.fit(torch.tensor([31, 31]), torch.tensor([0, 2]), torch.tensor([-4.8]))
    # Without atomic numbers the offset is that of the only element fitted.
    torch.testing.assert_close(scale(torch.zeros(2), None), torch.tensor([-2.4, -2.4]))


def test_buffers_travel_with_the_weights():
    fitted, other = EnergyScale(), EnergyScale()
    fitted.fit(*mixed())
    assert not list(fitted.parameters())
    other.load_state_dict(fitted.state_dict())
    assert other.offset.equal(fitted.offset)
    other.reset_parameters()
    assert other.offset.abs().sum() == 0
    assert fitted.double()(torch.zeros(1, dtype=torch.double), torch.tensor([31])).dtype == torch.double


def test_shift_of_references():
    z, ptr, _ = mixed()
    shift = shift_of_references(z, ptr, {11: -1.5, 31: -2.5})
    assert shift.dtype == torch.double
    assert shift.tolist() == [-3.0, -2.5, -6.5]
    with pytest.raises(ValueError, match=r"no reference energy for atomic numbers \[31\], only for \[11\]"):
        shift_of_references(z, ptr, {11: -1.5})


def test_references_keep_all_electron_totals():
    # Seventy atoms of -52,000 eV each: single precision resolves 0.25 eV there, double precision all digits given.
    z, ptr = torch.full((70,), 31), torch.tensor([0, 70])
    total = torch.tensor([70 * -52000.0 - 170.125], dtype=torch.double)
    assert (total - shift_of_references(z, ptr, {31: -52000.0})).item() == pytest.approx(-170.125, abs=1e-8)


def test_atomic_numbers_are_needed_for_several_elements():
    scale = EnergyScale()
    scale.fit(torch.tensor([29, 79, 79]), torch.tensor([0, 1, 3]), torch.tensor([-1.0, -4.0]))
    with pytest.raises(InputError, match="several elements"):
        scale(torch.zeros(1), None)


def test_totals_too_large_for_their_precision_give_a_warning():
    with pytest.warns(UserWarning, match="give them in double precision"):
        EnergyScale().fit(torch.tensor([31, 31]), torch.tensor([0, 2]), torch.tensor([-2.0 * 52907.0]))


def test_reference_energies_keep_every_digit_in_single_precision_models():
    scale = EnergyScale()
    scale.set_references({"Ga": -52826.0867})
    z = torch.full((46,), 31)
    # 46 x 52826.0867 eV = 2429999.9882 eV, where single precision has steps of 0.25 eV.
    assert float(scale(torch.zeros(46), z).sum()) == pytest.approx(-2429999.9882, abs=1e-8)
    for changed in (scale.float(), scale.half(), scale.double().float()):
        assert changed.references.dtype == torch.double
        assert float(changed.references[31]) == -52826.0867


def test_an_element_without_reference_energy_has_no_energy():
    scale = EnergyScale()
    scale.set_references({"Na": -4410.25})
    assert scale(torch.zeros(2), torch.tensor([11, 31])).isinf().tolist() == [False, True]
    assert float(scale(torch.zeros(()), None)) == -4410.25


def test_reference_energies_travel_with_the_weights_and_are_absent_without_them():
    plain, other = EnergyScale(), EnergyScale()
    assert set(plain.state_dict()) == {"offset", "scale"}
    other.set_references({"Na": -4410.25, "K": -16000.0})
    plain.load_state_dict(other.state_dict())
    assert plain.reference_energies() == {"Na": -4410.25, "K": -16000.0}
    plain.load_state_dict(EnergyScale().state_dict())
    assert plain.references is None
    assert plain(torch.zeros(1), torch.tensor([11])).dtype == torch.float32


def test_energies_that_are_not_finite_are_refused():
    z, ptr, energy = mixed()
    energy[1] = float("nan")
    scale = EnergyScale()
    with pytest.raises(InputError, match="training energies must be finite numbers: one is nan"):
        scale.fit(z, ptr, energy)
    assert not scale.is_fitted


def test_shieldings_are_those_of_the_atoms():
    with pytest.raises(InputError, match=r"must be \[num_atoms\], got \[12\] for 6 atoms"):
        ShieldingScale().fit(*mixed()[:2], torch.rand(12))


def test_weights_of_other_modules_leave_scale_and_domain_unchanged():
    """As in transfer learning, with ``strict=False``."""
    z, ptr = torch.tensor([11, 11, 31, 31]), torch.tensor([0, 2, 4])
    for model, target in ((DART(), torch.tensor([-8820.6, -105652.2])), (NodeSchNet(), torch.arange(4.0))):
        model.scale.fit(z, ptr, target.double())
        model.domain.set_electronic_state(-1, False)
        model.domain.add(z, ptr, torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.9]]).repeat(2, 1))
        before = copy.deepcopy(model.state_dict())
        others = {name: value for name, value in before.items() if not name.startswith(("scale.", "domain."))}
        missing = model.load_state_dict(others, strict=False).missing_keys
        assert set(missing) == set(before) - set(others)
        assert before.keys() == model.state_dict().keys()
        assert all(value.equal(before[name]) for name, value in model.state_dict().items())
        fresh = type(model)()
        fresh.load_state_dict(others, strict=False)
        with pytest.warns(UserWarning, match="not fitted"):
            fresh.scale(torch.zeros(4), z)


def test_totals_too_large_for_single_precision_are_fitted_in_double():
    z, ptr = torch.full((4,), 31), torch.tensor([0, 2, 4])
    energy = torch.tensor([-105800.0123, -105800.1234], dtype=torch.double)
    assert in_needed_precision(energy).dtype == torch.double
    assert in_needed_precision(energy / 1000).dtype == torch.float32
    scale = EnergyScale()
    scale.fit(z, ptr, energy)
    assert scale.offset.abs().sum() == 0
    assert scale.reference_energies() == {"Ga": pytest.approx(-52900.033925, abs=1e-9)}


def test_training_without_a_fitted_scale_warns_once():
    z, ptr = torch.full((4,), 31), torch.tensor([0, 4])
    for scale, target in ((EnergyScale(), torch.tensor([-9.0])), (ShieldingScale(), torch.rand(4))):
        arguments = (torch.zeros(4), z) if isinstance(scale, EnergyScale) else (torch.zeros(4),)
        fitted, loaded = copy.deepcopy(scale), copy.deepcopy(scale)
        fitted.fit(z, ptr, target)
        loaded.load_state_dict(fitted.state_dict())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fitted(*arguments)
            loaded(*arguments)
            copy.deepcopy(scale).eval()(*arguments)
        with pytest.warns(UserWarning, match=r"call model.scale.fit\(z, ptr, y\)"):
            scale(*arguments)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scale(*arguments)


@pytest.mark.parametrize("transform", [False, True])
def test_shieldings_of_each_element_have_their_own_mean(tmp_path, transform):
    """Differences between elements, of thousands of ppm, do not hide those between atoms of one."""
    generator = torch.Generator().manual_seed(0)
    z = torch.tensor([13, 31]).repeat(50)
    shieldings = torch.where(z == 13, 550.0, 1800.0) + 20 * torch.randn(100, generator=generator)
    model = NodeSchNet(hidden_channels=8, num_filters=8, transform=transform)
    model.scale.fit(z, torch.arange(0, 101, 10), shieldings)
    standard = model.scale.standardize(shieldings, z)
    for number in (13, 31):
        assert float(standard[z == number].mean()) == pytest.approx(0.0, abs=1e-3)
    assert float(standard.std(correction=0)) == pytest.approx(1.0, abs=1e-3)
    torch.testing.assert_close(model.scale(standard, z), shieldings, rtol=1e-4, atol=0.0)
    with pytest.raises(InputError, match="atomic numbers z are needed"):
        model.scale(standard)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.scale(standard, z).equal(model.scale(standard, z))
    model.scale.fit(z[::2], torch.tensor([0, 50]), shieldings[::2])
    assert "scale.offset" not in model.state_dict()
    loaded.load_state_dict(model.state_dict())
    assert loaded.scale(standard).equal(model.scale(standard))
