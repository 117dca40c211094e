"""Spectra: lines of known area and width, and the command on clusters whose shieldings are known."""

import csv
import json

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.units import kB
from scipy.stats import norm

from pyg_clusters.analysis.line_shapes import boltzmann_weights, broaden, overlap, shift_axis, shifts
from pyg_clusters.cli import main
from pyg_clusters.errors import InputError
from pyg_clusters.frames import write_extxyz
from pyg_clusters.models import NodeSchNet, save_model
from pyg_clusters.testing import random_clusters
from pyg_clusters.units import SODIUM_REFERENCE_PPM

pytestmark = pytest.mark.figures

SHAPES = ("gaussian", "lorentzian")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("width", [1.0, 8.0])
def test_area_and_width_of_a_line(shape, width):
    axis = shift_axis([20.0], width, shape)
    lines = broaden([20.0], width, shape, axis=axis)
    assert np.trapezoid(lines.intensity, axis) == pytest.approx(1, abs=1e-9)
    assert lines.peak == pytest.approx(20.0, abs=width / 20)
    half = np.interp([20 - width / 2, 20 + width / 2], axis, lines.intensity)
    np.testing.assert_allclose(half / lines.intensity.max(), 0.5, atol=0.002)


def test_gaussian_lines_are_those_of_the_formula():
    values, weights = np.array([-31.7, 4.2, 5.1]), np.array([1.0, 2.0, 0.5])
    lines = broaden(values, 6.0, weights=weights)
    expected = sum(w * norm.pdf(lines.shift, v, 6.0 / 2.354820) for v, w in zip(values, weights, strict=True)) / 3.5
    np.testing.assert_allclose(lines.intensity, expected, atol=2e-3 * expected.max())
    mean = np.trapezoid(lines.shift * lines.intensity, lines.shift)
    assert mean == pytest.approx(np.average(values, weights=weights), abs=1e-9)


def test_overlap_is_the_common_area():
    values = np.array([0.0, 100.0])
    axis = shift_axis(values, 4.0)
    first, second, both = (broaden(v, 4.0, axis=axis) for v in (values[:1], values[1:], values))
    assert overlap(first, first) == pytest.approx(1) and overlap(first, second) == pytest.approx(0, abs=1e-9)
    assert overlap(first, both) == overlap(both, first) == pytest.approx(0.5, abs=1e-6)
    apart = 3.0  # the overlap of two normal distributions of equal width is 2 Φ(-d / 2s)
    axis = shift_axis([0.0, apart], 4.0)
    shared = overlap(broaden([0.0], 4.0, axis=axis), broaden([apart], 4.0, axis=axis))
    assert shared == pytest.approx(2 * norm.cdf(-apart / 2 * 2.354820 / 4.0), abs=1e-3)
    with pytest.raises(ValueError, match="common axis"):
        overlap(first, broaden([apart], 4.0))


def test_shifts_of_the_standard_are_zero():
    assert shifts([SODIUM_REFERENCE_PPM, 600.0]).tolist() == pytest.approx([0.0, SODIUM_REFERENCE_PPM - 600])
    assert shifts([600.0], reference=610.0).tolist() == [10.0]


def test_boltzmann_weights():
    weights = boltzmann_weights([-10.0, -10.0 + kB * 500 * np.log(4)], 500.0)
    np.testing.assert_allclose(weights, [0.8, 0.2])
    np.testing.assert_allclose(boltzmann_weights([-1e4, 5.0], 1.0), [1.0, 0.0])
    np.testing.assert_allclose(boltzmann_weights([1.0, 2.0, 3.0], 1e9), 1 / 3, rtol=1e-4)


def test_invalid_spectra():
    for arguments, message in (
        (([], 5.0), "at least one shift"),
        (([np.nan], 5.0), "finite"),
        (([0.0], 0.0), "width of a line must be positive .* got 0"),
        (([0.0, 1e6], 1e-3), "too narrow"),
        (([0.0], 5.0, "square"), "gaussian, lorentzian, got 'square'"),
    ):
        with pytest.raises(InputError, match=message):
            broaden(*arguments)
    with pytest.raises(InputError, match="at least one positive"):
        broaden([1.0], 5.0, weights=[0.0])
    axis = shift_axis([0.0], 5.0)
    for shift in (axis[0] - 0.1, axis[-1] + 0.1, np.nan):
        with pytest.raises(InputError, match="a shift is not on the axis"):
            broaden([0.0, shift], 5.0, axis=axis)
    assert broaden([axis[0], axis[-1]], 5.0, axis=axis).peak in axis[[0, -1]]
    with pytest.raises(InputError, match="temperature must be positive"):
        boltzmann_weights([0.0], 0.0)


# The command


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A saved model that predicts 600 ppm for each atom."""
    torch.manual_seed(0)
    model = NodeSchNet(hidden_channels=8, num_filters=8)
    model.scale.mean.fill_(600.0)
    model.scale.scale.fill_(0.0)
    folder = tmp_path_factory.mktemp("model")
    save_model(model, folder)
    return folder


def dimer(energy=None, shielding=None, symbol="Na2") -> Atoms:
    atoms = Atoms(symbol, [[0, 0, 0], [0, 0, 3.0]])
    if energy is not None:
        atoms.info["energy"] = energy
    if shielding is not None:
        atoms.arrays["nmr_shielding"] = np.full(2, shielding)
    return atoms


def table_of(path) -> dict[str, np.ndarray]:
    with path.open() as stream:
        header, *rows = csv.reader(stream)
    columns = zip(header, zip(*rows, strict=True), strict=True)
    return {name: np.array(values if name == "size" else [float(v) for v in values]) for name, values in columns}


def test_spectra_of_each_size(model, tmp_path, capsys):
    trimer = Atoms("Na3", [[0, 0, 0], [0, 0, 3], [0, 3, 0]], info={"energy": -3.0})
    trimer.arrays["nmr_shielding"] = np.array([600.0, 600.0, 560.0])
    frames = [dimer(-2.0, 600.0), dimer(-2.0 + kB * 300 * np.log(3), 500.0), trimer]
    write_extxyz(tmp_path / "na.extxyz", frames)
    out = tmp_path / "out"
    command = ["spectrum", str(model), str(tmp_path / "na.extxyz"), "--reference", "610", "--width", "5"]
    assert main([*command, "--temperature", "300", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "overlap" in printed and "2 atoms" in printed and "3 atoms" in printed
    result = json.loads((out / "spectrum.json").read_text())
    assert (result["reference_ppm"], result["width_ppm"], result["temperature_K"]) == (610, 5, 300)
    of_2, of_3 = result["spectra"]
    assert (of_2["size"], of_2["num_clusters"], of_2["num_atoms"], of_3["num_atoms"]) == (2, 2, 4, 3)
    assert of_2["pred_peak_ppm"] == pytest.approx(10) and of_3["dft_peak_ppm"] == pytest.approx(10)
    # The predictions are one line; half of the DFT spectrum of the dimers lies there, three quarters in equilibrium.
    assert of_2["overlap"] == pytest.approx(0.5, abs=1e-3)
    assert of_2["overlap_boltzmann"] == pytest.approx(0.75, abs=1e-3)
    assert of_3["overlap"] == of_3["overlap_boltzmann"] == pytest.approx(2 / 3, abs=1e-3)
    assert of_2["effective_isomers"] == pytest.approx(1 / (0.75**2 + 0.25**2), rel=1e-6)
    table = table_of(out / "spectrum.csv")
    assert set(table) == {"size", "shift_ppm", "pred", "dft", "pred_boltzmann", "dft_boltzmann"}
    for size in ("2", "3"):
        rows = table["size"] == size
        for name in ("pred", "dft", "pred_boltzmann", "dft_boltzmann"):
            assert np.trapezoid(table[name][rows], table["shift_ppm"][rows]) == pytest.approx(1, abs=1e-6)
    assert (out / "spectrum.png").stat().st_size > 10_000
    assert main([*command, "--out", str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_one_spectrum_of_all_without_labels(model, tmp_path):
    write_extxyz(tmp_path / "na.extxyz", [dimer(), Atoms("Na3", [[0, 0, 0], [0, 0, 3], [0, 3, 0]])])
    command = ["spectrum", str(model), str(tmp_path / "na.extxyz"), "--by", "all", "--shape", "lorentzian"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    result = json.loads((tmp_path / "out" / "spectrum.json").read_text())
    assert result["reference_ppm"] == SODIUM_REFERENCE_PPM and result["temperature_K"] is None
    (row,) = result["spectra"]
    assert (row["size"], row["num_clusters"], row["num_atoms"]) == ("all", 2, 5) and "overlap" not in row
    assert row["pred_peak_ppm"] == pytest.approx(SODIUM_REFERENCE_PPM - 600, abs=0.5)


@pytest.mark.filterwarnings("default")
def test_labels_of_only_some_frames_are_ignored(model, tmp_path, capsys):
    write_extxyz(tmp_path / "na.extxyz", [dimer(-2.0, 600.0), dimer(shielding=580.0)])
    command = ["spectrum", str(model), str(tmp_path / "na.extxyz"), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert "energies are not used: 1 of 2 frames have none" in capsys.readouterr().err
    assert set(table_of(tmp_path / "out" / "spectrum.csv")) == {"size", "shift_ppm", "pred", "dft"}


@pytest.mark.filterwarnings("default")
def test_energies_of_two_zeros_have_no_boltzmann_weights(model, tmp_path, capsys):
    write_extxyz(tmp_path / "na.extxyz", [dimer(-0.7), dimer(-8821.2)])
    assert main(["spectrum", str(model), str(tmp_path / "na.extxyz"), "--out", str(tmp_path / "out")]) == 0
    assert "Boltzmann weights are meaningless: energies of 2 atoms differ by up to 4410" in capsys.readouterr().err


@pytest.mark.filterwarnings("default")
def test_energies_of_the_other_sign_have_no_boltzmann_weights(model, tmp_path, capsys):
    frames = [dimer(), dimer()]
    for number, frame in enumerate(frames):
        frame.info["binding_energy"] = 0.7 + number / 10
    write_extxyz(tmp_path / "na.extxyz", frames)
    command = ["spectrum", str(model), str(tmp_path / "na.extxyz"), "--energy", "binding_energy"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    assert "Boltzmann weights are meaningless: 'binding_energy' is positive" in capsys.readouterr().err


@pytest.mark.filterwarnings("default")
def test_energies_per_atom_have_no_boltzmann_weights(model, tmp_path, capsys):
    frames = [dimer(-0.70), dimer(-0.72)]
    frames += [Atoms("Na4", [[0, 0, 3.4 * k] for k in range(4)], info={"energy": energy}) for energy in (-0.8, -0.82)]
    write_extxyz(tmp_path / "na.extxyz", frames)
    assert main(["spectrum", str(model), str(tmp_path / "na.extxyz"), "--out", str(tmp_path / "out")]) == 0
    error = capsys.readouterr().err
    assert "Boltzmann weights are meaningless: the energies hardly change with the number of atoms" in error


def test_frames_without_a_finite_label_are_left_out(model, tmp_path, capsys):
    """Only the second dimer counts: its shift is the reference minus 580 ppm."""
    write_extxyz(tmp_path / "na.extxyz", [dimer(-2.0, np.nan), dimer(-2.0, 580.0), dimer(np.inf, 500.0)])
    command = ["spectrum", str(model), str(tmp_path / "na.extxyz"), "--on-bad", "skip", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    error = capsys.readouterr().err
    assert "frame 0: 'nmr_shielding' is nan" in error and "frame 2: 'energy' is inf" in error
    (row,) = json.loads((tmp_path / "out" / "spectrum.json").read_text())["spectra"]
    assert (row["num_clusters"], row["effective_isomers"]) == (1, 1.0)
    assert row["dft_boltzmann_peak_ppm"] == pytest.approx(SODIUM_REFERENCE_PPM - 580, abs=0.5)


@pytest.mark.parametrize(
    ("frame", "arguments", "message"),
    [
        (dimer(), ["--target", "sigma"], "na.extxyz, frame 0: no 'sigma'; found no labels"),
        (dimer(), ["--energy", "total"], "na.extxyz, frame 0: no 'total'"),
        (dimer(shielding=np.nan), [], "frame 0: 'nmr_shielding' is nan; fix or remove the frame"),
        (dimer(symbol="NaK"), [], "a spectrum has one nucleus, but there are Na, K"),
        (dimer(symbol="K2"), [], "the default reference is that of sodium, but the frames are K: give --reference"),
        (dimer(), ["--width", "0"], "the width of a line must be positive"),
        (dimer(), ["--temperature", "-1"], "the temperature must be positive"),
    ],
)
def test_bad_input_is_one_line(model, tmp_path, capsys, frame, arguments, message):
    write_extxyz(tmp_path / "na.extxyz", [frame])
    command = ["spectrum", str(model), str(tmp_path / "na.extxyz"), *arguments, "--out", str(tmp_path / "out")]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1 and message in error
    assert not (tmp_path / "out").exists()


def test_model_of_energies_has_no_spectrum(generator, tmp_path, capsys):
    z, pos, _ = random_clusters((31,), 31, generator)
    write_extxyz(tmp_path / "ga.extxyz", [Atoms(z.numpy(), pos.numpy())])
    assert main(["spectrum", "gallium", str(tmp_path / "ga.extxyz"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1 and "it is not a model of shieldings" in error
