import shutil
from collections import Counter

import pytest
import yaml

from pyg_clusters import shipped
from pyg_clusters.datasets import Card
from pyg_clusters.datasets.shipped_clusters import GalliumClusters
from pyg_clusters.errors import InputError
from pyg_clusters.shipped import shipped_folder

GALLIUM = shipped_folder("gallium_clusters")


@pytest.fixture
def content():
    return yaml.safe_load((GALLIUM / "card.yaml").read_text(encoding="utf-8"))


def load(folder, content):
    path = folder / "card.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return Card.load(path)


def test_gallium_card_matches_its_files():
    card = Card.load(GALLIUM / "card.yaml")
    assert set(card.files) == {file.name for file in GALLIUM.glob("*.extxyz")}
    assert set(card.files) == {
        f"gallium_{part}.extxyz"
        for subset in GalliumClusters.SUBSETS
        for part in GalliumClusters.FILES.get(subset, (subset,))
    }
    assert card.files["gallium_minima.extxyz"].frames == 6030
    assert card.licence == "CC-BY-4.0" and "not DFT" in card.level_of_theory
    for name, file in card.files.items():
        lines = iter(card.verify(GALLIUM, name).read_text(encoding="utf-8").splitlines())
        sizes = Counter()
        for header in lines:
            sizes[int(header)] += 1
            for _ in range(int(header) + 1):
                next(lines)
        assert sizes == file.sizes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("licence"), "missing key 'licence'"),
        (lambda c: c.update(license="MIT"), "unknown key 'license'; the keys are name, title"),
        (lambda c: c.update(title=3), "title must be text, got 3"),
        (lambda c: c["properties"]["energy"].pop("unit"), "properties: energy: missing key 'unit'"),
        (lambda c: c["properties"].update(energy="eV"), "properties: energy: expected keys and values, got str"),
        (lambda c: c["files"]["gallium_md_46.extxyz"].update(frames="many"), "frames must be a whole number"),
        (lambda c: c["files"]["gallium_md_46.extxyz"].update(frames=999), "sizes add up to 1000, but frames is 999"),
        (lambda c: c["files"]["gallium_md_46.extxyz"].update(sizes={"a": 1}), "sizes must be keys and values"),
    ],
)
def test_wrong_cards_are_refused(tmp_path, content, change, words):
    change(content)
    with pytest.raises(InputError) as caught:
        load(tmp_path, content)
    assert words in str(caught.value) and str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_card_that_is_missing_or_not_yaml(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        Card.load(tmp_path / "card.yaml")
    (tmp_path / "card.yaml").write_text("a: [1,\nb: 2")
    with pytest.raises(InputError, match=r"card\.yaml: not YAML") as caught:
        Card.load(tmp_path / "card.yaml")
    assert "\n" not in str(caught.value)


def test_changed_file_is_noticed(tmp_path):
    card = Card.load(GALLIUM / "card.yaml")
    name = "gallium_md_46.extxyz"
    with pytest.raises(InputError, match="no such file"):
        card.verify(tmp_path, name)
    shutil.copy(GALLIUM / name, tmp_path)
    assert card.verify(tmp_path, name) == tmp_path / name
    with open(tmp_path / name, "r+b") as stream:
        stream.seek(1000)
        stream.write(b"!")
    with pytest.raises(InputError, match="corrupted or changed"):
        card.verify(tmp_path, name)
    with pytest.raises(InputError, match="not on the card of gallium_clusters"):
        card.verify(tmp_path, "other.xyz")


def test_installed_data_come_before_those_of_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "PACKAGE", tmp_path / "pyg_clusters")
    for folder in ("datasets/a", "datasets/b", "pyg_clusters/_data/a"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "card.yaml").touch()
    assert shipped_folder("a") == tmp_path / "pyg_clusters/_data/a"
    assert shipped_folder("b") == tmp_path / "datasets/b"
    with pytest.raises(InputError, match="no data set 'c' comes with the package; found: a, b"):
        shipped_folder("c")
