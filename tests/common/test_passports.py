"""locate(): which edition lies where, and what is said of a copy that is not whole."""

import errno
import hashlib
import subprocess

import pytest
import yaml

from common.base import paths
from common.base.errors import DataAbsent, DataError, UsageError
from common.data import passports
from common.data.download import fetch
from common.data.passports import find_passport, locate


@pytest.fixture
def shapes(toy):
    return toy.passport()


@pytest.mark.parametrize("edition", ["official", "bundle", "resized"])
def test_each_edition_is_recognised(toy, shapes, edition):
    folder = toy.put_data(paths.DATA, edition)
    found = locate(shapes)
    assert (found.dataset, found.edition, found.folder, found.standin) == ("shapes", edition, folder, False)
    assert found.files == {name: file.sha256 for name, file in shapes.editions[edition].files.items()}
    assert found.vouched == tuple(found.files)


def test_only_an_equivalent_edition_counts(shapes):
    editions = ("official", "bundle", "resized", "stand-in")
    assert [edition for edition in editions if shapes.counts(edition)] == ["official", "bundle"]


def test_nothing_there_is_absent(shapes):
    with pytest.raises(DataAbsent, match="not found here"):
        locate(shapes)


def test_an_empty_folder_is_absent(shapes):
    (paths.DATA / "shapes").mkdir(parents=True)
    with pytest.raises(DataAbsent, match="not found here"):
        locate(shapes)


def damaged(shapes, *expected: str) -> None:
    with pytest.raises(DataError) as told:
        locate(shapes)
    assert not isinstance(told.value, DataAbsent)  # damaged data never becomes a stand-in
    assert all(text in str(told.value) for text in expected), str(told.value)
    assert "\n" not in str(told.value)


def test_a_truncated_file_is_told_with_both_sizes(toy, shapes):
    file = toy.put_data(paths.DATA) / "test.bin"
    file.write_bytes(toy.content("test.bin")[:1000])
    damaged(shapes, str(file), "1,000 bytes instead of 1,800")


def test_an_empty_file_is_damaged(toy, shapes):
    file = toy.put_data(paths.DATA) / "train.bin"
    file.write_bytes(b"")
    damaged(shapes, str(file), "0 bytes instead of 4,200")


def test_one_changed_bit_is_noticed(toy, shapes):
    file = toy.put_data(paths.DATA) / "train.bin"
    content = bytearray(toy.content("train.bin"))
    content[1234] ^= 1
    file.write_bytes(content)
    damaged(shapes, str(file), "altered content")


def test_swapped_files_are_noticed(toy, shapes):
    folder = toy.put_data(paths.DATA)
    (folder / "train.bin").write_bytes(toy.content("test.bin"))
    (folder / "test.bin").write_bytes(toy.content("train.bin"))
    damaged(shapes, "train.bin is not what its passport says")


def test_a_missing_file_is_named_and_makes_the_copy_absent(toy, shapes):
    folder = toy.put_data(paths.DATA)
    (folder / "test.bin").unlink()
    with pytest.raises(DataAbsent, match="test.bin is missing"):
        locate(shapes)


def test_an_incomplete_copy_is_passed_over_for_a_complete_one(toy, shapes, tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path / "environment"))
    (toy.put_data(tmp_path / "environment") / "test.bin").unlink()
    complete = toy.put_data(paths.DATA)
    assert locate(shapes).folder == complete


def test_an_altered_file_is_told_even_where_another_is_missing(toy, shapes):
    folder = toy.put_data(paths.DATA)
    (folder / "test.bin").unlink()
    (folder / "train.bin").write_bytes(b"half")
    damaged(shapes, "train.bin is not what its passport says")


def test_files_of_two_editions_make_no_edition(toy, shapes):
    folder = toy.put_data(paths.DATA)
    (folder / "train.bin").write_bytes(toy.content("train.bin", "resized"))
    damaged(shapes, str(folder))


def test_a_damaged_copy_is_told_in_terms_of_the_edition_it_is_nearest_to(toy, shapes):
    folder = toy.put_data(paths.DATA, "bundle")
    (folder / "shapes.npz").write_bytes(b"half")
    damaged(shapes, str(folder / "shapes.npz"), "4 bytes instead of 3,400")


def test_a_file_that_may_not_be_read_is_told(toy, shapes, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    folder = toy.put_data(paths.DATA)
    monkeypatch.setattr(passports, "file_sha256", refuse)
    damaged(shapes, str(folder), "Permission denied")


def test_a_folder_where_a_file_belongs_is_told(toy, shapes):
    folder = toy.put_data(paths.DATA)
    (folder / "test.bin").unlink()
    (folder / "test.bin").mkdir()
    damaged(shapes, str(folder))


def test_a_missing_data_dir_is_an_error_even_if_data_is_elsewhere(toy, shapes, tmp_path):
    toy.put_data(paths.DATA)
    with pytest.raises(DataError, match="--data-dir .*nowhere: no such folder") as told:
        locate(shapes, tmp_path / "nowhere")
    assert not isinstance(told.value, DataAbsent)


def test_data_dir_comes_before_repro_data_and_that_before_the_default(toy, shapes, tmp_path, monkeypatch):
    folders = [toy.put_data(root) for root in (tmp_path / "named", tmp_path / "environment", paths.DATA)]
    monkeypatch.setenv("REPRO_DATA", str(tmp_path / "environment"))
    assert locate(shapes, tmp_path / "named").folder == folders[0]
    assert locate(shapes).folder == folders[1]
    monkeypatch.setenv("REPRO_DATA", "")
    assert locate(shapes).folder == folders[2]


def test_where_the_first_folder_has_nothing_the_next_is_looked_at(toy, shapes, tmp_path, monkeypatch):
    folder = toy.put_data(paths.DATA)
    for name in ("named", "environment"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("REPRO_DATA", str(tmp_path / "environment"))
    assert locate(shapes, tmp_path / "named").folder == folder


def test_a_repro_data_that_is_no_folder_is_an_error_too(toy, shapes, tmp_path, monkeypatch):
    toy.put_data(paths.DATA)
    monkeypatch.setenv("REPRO_DATA", str(tmp_path / "named"))
    with pytest.raises(DataError, match="REPRO_DATA .*named: no such folder") as told:
        locate(shapes)
    assert not isinstance(told.value, DataAbsent)
    (tmp_path / "named").touch()
    with pytest.raises(UsageError, match="REPRO_DATA .*named: is a file, not a folder"):
        locate(shapes)


def test_every_folder_looked_in_is_named(shapes, tmp_path, monkeypatch):
    (tmp_path / "environment").mkdir()
    monkeypatch.setenv("REPRO_DATA", str(tmp_path / "environment"))
    with pytest.raises(DataAbsent) as told:
        locate(shapes, tmp_path)
    assert all(str(root / "shapes") in str(told.value) for root in (tmp_path, tmp_path / "environment", paths.DATA))


def changed_passport(edition: str, **files):
    """The dataset "shapes" with other entries for some files of an edition."""
    file = paths.PASSPORTS / "shapes.yaml"
    content = yaml.safe_load(file.read_text())
    content["editions"][edition]["files"].update(files)
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return find_passport("shapes")


def test_what_is_there_instead_is_named(toy, shapes):
    folder = paths.DATA / shapes.folder
    folder.mkdir(parents=True)
    for name in "fedcba":
        (folder / name).touch()
    with pytest.raises(DataAbsent, match=r"shapes \(which holds a, b, c, d and 2 more\)"):
        locate(shapes)


def test_a_file_of_which_only_gits_hash_is_known_is_checked_by_it(toy):
    content = toy.content("train.bin")
    blob = subprocess.run(["git", "hash-object", "--stdin"], input=content, capture_output=True, check=True)
    shapes = changed_passport("official", **{"train.bin": {"git_blob": blob.stdout.decode().strip()}})
    folder = toy.put_data(paths.DATA)
    found = locate(shapes)
    assert found.edition == "official"
    assert found.files["train.bin"] == hashlib.sha256(content).hexdigest()  # what was seen
    assert "train.bin" in found.vouched
    (folder / "train.bin").write_bytes(content[:-1] + b"E")
    damaged(shapes, "train.bin is not what its passport says (altered content)")


@pytest.mark.parametrize("known", ["md5", "sha256_begins"])
def test_a_file_of_which_only_the_md5_sum_or_a_beginning_is_known_is_checked_by_it(toy, known):
    content = toy.content("train.bin")
    checksum = {"md5": hashlib.md5, "sha256_begins": hashlib.sha256}[known](content).hexdigest()
    shapes = changed_passport("official", **{"train.bin": {known: checksum if known == "md5" else checksum[:8]}})
    folder = toy.put_data(paths.DATA)
    found = locate(shapes)
    assert found.files["train.bin"] == hashlib.sha256(content).hexdigest()  # what was seen
    assert "train.bin" in found.vouched
    (folder / "train.bin").write_bytes(content[:-1] + b"E")
    damaged(shapes, "train.bin is not what its passport says (altered content)")


def test_a_file_without_a_checksum_is_taken_by_name_and_recorded(toy):
    shapes = changed_passport("bundle", **{"shapes.npz": {}})
    folder = toy.put_data(paths.DATA, "bundle")
    (folder / "shapes.npz").write_bytes(b"mine")
    found = locate(shapes)
    assert (found.edition, found.files) == ("bundle", {"shapes.npz": hashlib.sha256(b"mine").hexdigest()})
    assert found.vouched == ()
    toy.put_data(folder.parent.parent / "other")
    (folder / "train.bin").write_bytes(b"half")  # beside it, of another edition and altered
    assert locate(shapes).edition == "bundle"


def test_no_edition_counts_for_a_claim_unless_its_files_can_be_checked():
    for passport in passports.all_passports().values():
        for edition in passport.editions.values():
            if edition.equivalent:
                assert edition.evidence and all(file.has_checksum for file in edition.files.values())


def test_files_that_the_passport_does_not_know_are_no_matter(toy, shapes):
    (toy.put_data(paths.DATA) / "notes.txt").write_text("mine")
    assert locate(shapes).edition == "official"


def test_an_unknown_dataset_gets_a_suggestion(shapes):
    with pytest.raises(UsageError, match=r"No dataset is called 'shape'\. Did you mean shapes\?"):
        find_passport("shape")


def test_a_passport_in_the_papers_own_folder_is_found(toy, shapes):
    paper = toy.paper()
    own = paper.folder / "passports" / "blobs.yaml"
    own.parent.mkdir()
    own.write_text((paths.PASSPORTS / "shapes.yaml").read_text())
    assert find_passport("blobs", paper.folder).name == "blobs"


# ---- editions that are known by their folders ---------------------------------------------------


@pytest.fixture
def given(toy):
    """A passport of pictures that nobody publishes with checksums."""
    text = """
title: Given pictures
page: https://given.example/
terms: free
folder: given
splits: {train: 2, test: 1}
standin: none
editions:
  given: {description: two and one, equivalent: false, folders: {train: 2, test: 1}}
"""
    (paths.PASSPORTS / "given.yaml").write_text(text)
    return find_passport("given")


def put_given(root, **counts: int):
    for part, count in counts.items():
        (root / "given" / part).mkdir(parents=True)
        for number in range(count):
            (root / "given" / part / f"{number}.png").write_bytes(part.encode() * number)
    return root / "given"


def test_what_is_found_in_the_folders_is_recorded_with_its_checksums(given):
    folder = put_given(paths.DATA, train=2, test=1)
    (folder / "train" / ".DS_Store").write_bytes(b"no picture")
    found = locate(given)
    assert (found.edition, found.folder) == ("given", folder)
    assert found.files == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("train/0.png", "train/1.png", "test/0.png")
    }
    assert not given.counts("given")


def test_a_missing_folder_makes_the_copy_absent(given):
    put_given(paths.DATA, train=2)
    with pytest.raises(DataAbsent, match=r"test is missing \(1 files\)"):
        locate(given)


def test_a_folder_with_another_number_of_files_is_told(given):
    put_given(paths.DATA, train=3, test=1)
    damaged(given, "train holds 3 files instead of 2.")


def test_what_may_not_belong_into_such_a_folder_is_named(given):
    folder = put_given(paths.DATA, train=2, test=1) / "train"
    for name in ("notes.txt", "list.CSV"):
        (folder / name).write_text("no picture")
    damaged(given, "train holds 4 files instead of 2 (among them list.CSV, notes.txt).")
    for number in range(4):
        (folder / f"{number}.txt").write_text("no picture")
    (folder / "1.png").unlink()
    (folder / "0.png").rename(folder / "0.PNG")
    damaged(given, "train holds 7 files instead of 2 (among them 0.PNG, list.CSV).")


def test_no_folder_is_absent_and_cannot_be_fetched(given):
    with pytest.raises(DataAbsent, match="not found here"):
        locate(given)
    with pytest.raises(DataAbsent, match="cannot be fetched; get it from https://given.example/"):
        fetch(given)


# ---- editions that an installed Python package ships --------------------------------------------


@pytest.fixture
def shipped(toy, shapes, tmp_path, monkeypatch):
    """The folder of a package `triangles` that ships the official files; importing the package fails."""
    folder = tmp_path / "site-packages" / "triangles" / "datasets" / "data"
    toy.put_data(folder.parent)
    (folder.parent / "shapes").rename(folder)
    (tmp_path / "site-packages" / "triangles" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    return folder


def packaged_passport(package: str = "triangles"):
    file = paths.PASSPORTS / "shapes.yaml"
    content = yaml.safe_load(file.read_text())
    content["editions"]["official"]["package"] = {"name": package, "folder": "datasets/data"}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return find_passport("shapes")


def test_files_in_an_installed_package_are_found_without_importing_it(toy, shipped):
    passport = packaged_passport()
    found = locate(passport)
    assert (found.edition, found.folder) == ("official", shipped)
    assert found.files == {name: file.sha256 for name, file in passport.editions["official"].files.items()}


def test_a_copy_in_a_folder_comes_before_the_package(toy, shipped, tmp_path):
    assert locate(packaged_passport(), toy.put_data(tmp_path / "mine", "resized").parent).edition == "resized"
    folder = toy.put_data(paths.DATA)
    assert locate(packaged_passport()).folder == folder


def test_an_incomplete_copy_is_passed_over_for_the_package(toy, shipped):
    (toy.put_data(paths.DATA) / "test.bin").unlink()
    assert locate(packaged_passport()).folder == shipped


def test_an_altered_copy_is_reported_though_the_package_is_whole(toy, shipped):
    (toy.put_data(paths.DATA) / "test.bin").write_bytes(b"half")
    damaged(packaged_passport(), "test.bin is not what its passport says")


def test_a_package_that_is_not_installed_is_named_and_absent(toy, shipped):
    with pytest.raises(DataAbsent, match=r"not found here \(looked in .*, the Python package circles\)"):
        locate(packaged_passport("circles"))


def test_a_package_without_the_files_is_absent(toy, shipped):
    (shipped / "test.bin").unlink()
    with pytest.raises(DataAbsent, match="not found here"):
        locate(packaged_passport())


def test_a_package_with_other_files_is_reported(toy, shipped):
    (shipped / "test.bin").write_bytes(toy.content("test.bin", "resized"))
    damaged(packaged_passport(), str(shipped / "test.bin"), "Install triangles again")


def test_what_windows_puts_into_folders_is_passed_over(given):
    folder = put_given(paths.DATA, train=2, test=1)
    for name in ("Thumbs.db", "desktop.ini"):
        (folder / "train" / name).write_bytes(b"no picture")
    assert sorted(locate(given).files) == ["test/0.png", "train/0.png", "train/1.png"]


@pytest.fixture
def digested(given):
    """The same pictures, known by one hash of them all: that of `find * -type f | LC_ALL=C sort | xargs sha256sum`."""
    known = "folder: small, digest: 601b9a9cd87fe9456665f340f6f75b970b5321f2eeeaecb9be994661cb376ea0"
    file = paths.PASSPORTS / "given.yaml"
    file.write_text(file.read_text().replace("equivalent: false", f"equivalent: false, {known}"))
    return find_passport("given")


def test_an_edition_may_lie_in_a_folder_of_its_own(digested):
    folder = put_given(paths.DATA, train=2, test=1).rename(paths.DATA / "small")
    assert (locate(digested).edition, locate(digested).folder) == ("given", folder)


def test_in_the_folder_of_the_dataset_such_an_edition_is_not_looked_for(digested):
    put_given(paths.DATA, train=2, test=1)
    with pytest.raises(DataAbsent, match=r"not found here \(looked in .*small\)"):
        locate(digested)


def test_one_changed_bit_in_folders_with_a_digest_is_noticed(digested):
    folder = put_given(paths.DATA, train=2, test=1).rename(paths.DATA / "small")
    (folder / "train" / "1.png").write_bytes(b"trainer")
    damaged(digested, str(folder), "altered content")


def test_two_renamed_files_in_folders_with_a_digest_are_noticed(digested):
    folder = put_given(paths.DATA, train=2, test=1).rename(paths.DATA / "small")
    (folder / "train" / "0.png").rename(folder / "train" / "2.png")
    damaged(digested, str(folder), "altered content")


def test_an_edition_in_a_folder_of_its_own_does_not_hide_another(toy, shapes):
    file = paths.PASSPORTS / "shapes.yaml"
    content = yaml.safe_load(file.read_text())
    content["editions"]["resized"]["folder"] = "small_shapes"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    moved = find_passport("shapes")
    small = toy.put_data(paths.DATA, "resized").rename(paths.DATA / "small_shapes")
    assert (locate(moved).edition, locate(moved).folder) == ("resized", small)
    (small / "train.bin").write_bytes(b"half")
    damaged(moved, str(small / "train.bin"))
    official = toy.put_data(paths.DATA)
    assert (locate(moved).edition, locate(moved).folder) == ("official", official)


def edit_passport(change) -> None:
    file = paths.PASSPORTS / "shapes.yaml"
    content = yaml.safe_load(file.read_text())
    change(content["editions"])
    file.write_text(yaml.safe_dump(content))


def test_an_address_of_all_files_is_said_once(toy):
    def change(editions):
        editions["official"]["urls"] = ["https://one.example/", "https://two.example/v1/"]
        editions["official"]["files"]["test.bin"]["urls"] = ["https://other.example/test"]

    edit_passport(change)
    files = find_passport("shapes").editions["official"].files
    assert files["train.bin"].urls == ["https://one.example/train.bin", "https://two.example/v1/train.bin"]
    assert files["test.bin"].urls == ["https://other.example/test"]
    assert find_passport("shapes").editions["bundle"].files["shapes.npz"].urls == []


@pytest.fixture
def parts(toy):
    """A dataset whose test file is a dataset of its own."""
    content = yaml.safe_load((paths.PASSPORTS / "shapes.yaml").read_text())
    part = content["editions"]["official"] | {"urls": ["https://part.example/"]}
    part["files"] = {"test.bin": part["files"]["test.bin"]}
    alone = {
        "title": "Test shapes",
        "page": "x",
        "terms": "free",
        "folder": "shapes/test",
        "editions": {"official": part},
    }
    (paths.PASSPORTS / "test_shapes.yaml").write_text(yaml.safe_dump(alone))

    def change(editions):
        editions["official"]["files"].pop("test.bin")
        editions["official"]["parts"] = {"test": "test_shapes"}

    edit_passport(change)
    return toy


def test_a_part_is_a_dataset_alone_and_in_the_whole(parts):
    folder = paths.DATA / "shapes" / "test"
    folder.mkdir(parents=True)
    (folder / "test.bin").write_bytes(parts.content("test.bin"))
    assert locate(find_passport("test_shapes")).folder == folder
    with pytest.raises(DataAbsent, match="train.bin is missing"):
        locate(find_passport("shapes"))
    (folder.parent / "train.bin").write_bytes(parts.content("train.bin"))
    assert set(locate(find_passport("shapes")).files) == {"train.bin", "test/test.bin"}
    urls = find_passport("shapes").editions["official"].files["test/test.bin"].urls
    assert urls == ["https://part.example/test.bin"]


def test_a_part_without_such_an_edition_is_told(parts):
    edit_passport(lambda editions: editions["bundle"].update(parts={"test": "test_shapes"}))
    with pytest.raises(UsageError, match=r"editions\.bundle\.parts\.test: test_shapes has no such edition"):
        find_passport("shapes")


def test_a_part_without_a_passport_is_told(parts):
    edit_passport(lambda editions: editions["official"].update(parts={"test": "no_shapes"}))
    with pytest.raises(UsageError, match=r"no_shapes\.yaml: cannot be read"):
        find_passport("shapes")
