"""The command fit: real fits, batches, resumption and errors."""

import csv
import json
import os
import sys

import jax
import numpy as np
import pytest
from helpers.small_cutout import NOISE, THETA_E, small_lens, write_fits, write_lens

from lensjax import modeling
from lensjax.cli import predict_lenses
from lensjax.cli.fit_lenses import main
from lensjax.cli.lens_batch import read_observation
from lensjax.cli.lens_inputs import LensFiles, find_lenses
from lensjax.cli.options import FLAGS, parse
from lensjax.errors import UserError
from lensjax.main import run
from lensjax.report import lens_page

RADIUS = "--radius=2.4"


@pytest.fixture(scope="module")
def lens(tmp_path_factory):
    return write_lens(tmp_path_factory.mktemp("fit") / "lens_a")


@pytest.fixture(scope="module")
def fitted(lens):
    """Output folder of one real fit, and the fit."""
    results = []
    usual = modeling.fit

    def keep(*arguments, **options):
        with jax.numpy_rank_promotion("allow"):
            results.append(usual(*arguments, **options))
        return results[-1]

    output = lens.parent / "fits"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modeling, "fit", keep)
        assert run(["fit", f"--image={lens}", f"--output={output}", RADIUS, "--order=4"]) == 0
    return output, results[0]


@pytest.fixture
def cheap_fit(fitted, monkeypatch):
    """Replaces fits with the finished one; returns the calls: observation, model and radius."""
    calls = []

    def fit(observation, model, *, radius):
        calls.append((observation, model, radius))
        return fitted[1]

    monkeypatch.setattr(modeling, "fit", fit)
    monkeypatch.setattr(lens_page, "render_lens_page", lambda name, fitted: f"page of {name}")
    return calls


def table(output):
    with (output / "fits.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_lens_is_fitted_from_files_to_pages(fitted):
    output, _ = fitted
    assert {file.name for file in output.iterdir()} == {
        *("settings.json", "fits.csv", "index.html", "lens_a.json", "lens_a.html", "lens_a.png")
    }
    (row,) = table(output)
    assert row["verdict"] == "good"
    assert float(row["mass.0.theta_E"]) == pytest.approx(THETA_E, rel=0.01)
    assert 0 < float(row["mass.0.theta_E_error"]) < 0.02
    assert float(row["reduced_chi_square"]) == pytest.approx(1, abs=0.15)
    content = json.loads((output / "lens_a.json").read_text())
    assert content["lenstronomy"]["kwargs_lens"][0]["theta_E"] == content["mass.0.theta_E"]
    assert 'href="lens_a.html"' in (output / "index.html").read_text()


def test_lens_with_wrong_einstein_radius_is_not_good(fitted, tmp_path, capsys):
    """A lens near the border of its image, and two lenses in one image."""
    folder, output = tmp_path / "lenses", tmp_path / "fits"
    write_lens(folder / "cut", centers=((1.9, 0.3),))
    write_lens(folder / "two", centers=((0.0, 0.0), (1.7, -1.5)))
    with jax.numpy_rank_promotion("allow"):
        assert run(["fit", f"--image={folder}", f"--output={output}", RADIUS, "--order=4"]) == 0
    for row in table(output):
        right = float(row["mass.0.theta_E"]) == pytest.approx(THETA_E, rel=0.05)
        assert row["reasons"] if row["verdict"] != "good" else right, row
    lines = [line for line in capsys.readouterr().out.splitlines() if "theta_E = " in line]
    assert len(lines) == 2, lines


def test_folder_of_lenses_becomes_one_table_and_resumes(cheap_fit, tmp_path):
    folder, output = tmp_path / "lenses", tmp_path / "fits"
    for name in ("b", "index"):
        write_lens(folder / name)
    (folder / "c.fits").write_text("not FITS")
    words = [f"--image={folder}", f"--output={output}", "--main-lens=epl", "--order=3", RADIUS]
    assert main(words) == 0
    assert [row["name"] for row in table(output)] == ["b", "c", "index_2"]
    good, bad, renamed = table(output)
    assert (good["verdict"], renamed["verdict"], bad["verdict"]) == ("good", "good", "failed")
    assert "c.fits: is not a FITS file" in bad["reasons"]
    assert bad["mass.0.theta_E"] == ""
    (observation, model, radius), _ = cheap_fit
    assert (model, radius) == (modeling.galaxy_model("epl", 3), 2.4)
    np.testing.assert_allclose(observation.noise, NOISE)
    results = [*output.glob("b.*"), *output.glob("index_2.*")]
    made = {file: file.stat().st_mtime_ns for file in results}
    assert main(words) == 0  # only the bad file is read again
    assert len(cheap_fit) == 2
    assert {file: file.stat().st_mtime_ns for file in made} == made


def test_flags_complete_the_rows_of_a_table(lens, cheap_fit, tmp_path):
    write_fits(tmp_path / "twice.fits", 2 * small_lens()[1])
    psf = lens / "psf.fits"
    (tmp_path / "lenses.csv").write_text(
        f"name,image,noise,psf\nfirst,{lens}/image.fits,twice.fits,\n../second,{lens}/image.fits,,{psf}\n"
    )
    words = [f"--image={tmp_path}/lenses.csv", f"--output={tmp_path}/fits", f"--noise={lens}/noise.fits"]
    assert main([*words, "--psf-fwhm=0.2"]) == 0
    assert [row["name"] for row in table(tmp_path / "fits")] == ["_second", "first"]
    (first, *_), (second, *_) = cheap_fit
    np.testing.assert_allclose(first.noise, 2 * NOISE)
    np.testing.assert_allclose(second.noise, NOISE)  # the flag is for lenses without a noise map
    assert any("Gaussian of 0.2 arcsec" in note for note in first.notes)
    np.testing.assert_allclose(second.psf, small_lens()[2], atol=1e-7)


@pytest.mark.parametrize("change", ["settings", "files"])
def test_other_results_are_replaced_only_with_overwrite(cheap_fit, tmp_path, change):
    own, output = write_lens(tmp_path / "lens"), tmp_path / "fits"
    words = [f"--image={own}", f"--output={output}"]
    assert main(words) == 0
    before = (output / "lens.json").read_bytes()
    if change == "files":
        write_lens(tmp_path / "lens", seed=1)
    else:
        words.append("--order=5")
    with pytest.raises(UserError, match="add --overwrite"):
        main(words)
    assert (output / "lens.json").read_bytes() == before
    assert main([*words, "--overwrite"]) == 0
    assert (output / "lens.json").read_bytes() != before
    assert main(words) == 0
    assert len(cheap_fit) == 2


def test_folder_of_another_program_is_left_alone(lens, tmp_path):
    (tmp_path / "fits.csv").write_text("mine")
    with pytest.raises(UserError, match="was not created by this command"):
        main([f"--image={lens}", f"--output={tmp_path}", "--overwrite"])
    assert [file.name for file in tmp_path.iterdir()] == ["fits.csv"]


def test_interrupt_keeps_finished_lenses(cheap_fit, tmp_path, monkeypatch, capsys):
    for name in "abc":
        write_lens(tmp_path / "lenses" / name)
    fit = modeling.fit

    def stopped(*arguments, **options):
        if len(cheap_fit) == 1:
            raise KeyboardInterrupt
        return fit(*arguments, **options)

    monkeypatch.setattr(modeling, "fit", stopped)
    words = [f"--image={tmp_path}/lenses", f"--output={tmp_path}/fits"]
    assert run(["fit", *words]) == 130
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "rerun the same command to resume" in error
    assert [row["name"] for row in table(tmp_path / "fits")] == ["a"]
    monkeypatch.setattr(modeling, "fit", fit)
    assert run(["fit", *words]) == 0
    assert [row["name"] for row in table(tmp_path / "fits")] == ["a", "b", "c"]
    assert len(cheap_fit) == 3


def bad_files(folder):
    image, noise, _ = small_lens()
    write_lens(folder)
    write_fits(folder / "small.fits", noise[1:])
    write_fits(folder / "no_scale.fits", image, scale=None)
    write_fits(folder / "zeros.fits", 0 * image)
    (folder / "text.fits").write_text("This is text.")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise": "small.fits"}, "noise has shape (60, 61), but the image has shape (61, 61)"),
        ({"image": "no_scale.fits"}, "no pixel scale"),
        ({"extension": "SCI2"}, "no image extension SCI2"),
        ({"image": "text.fits"}, "text.fits: is not a FITS file"),
        ({"image": "zeros.fits"}, "image is 0 in all valid pixels"),
        ({"psf": None}, "no point-spread function; give psf, or psf_fwhm"),
        ({"image": "nothing.fits"}, "no such file"),
    ],
    ids=["shape", "scale", "extension", "text", "zeros", "psf", "nothing"],
)
def test_unusable_input_gives_one_line_and_code_2(tmp_path, capsys, monkeypatch, changes, message):
    bad_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    flags = {"image": "image.fits", "noise": "noise.fits", "psf": "psf.fits", "output": "fits"} | changes
    words = [f"--{name}={value}" for name, value in flags.items() if value is not None]
    assert run(["fit", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lensjax fit: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,picture\na,b\n", "has the columns name, picture"),
        ("image\n", "has no rows"),
        ("image\n\nx,y\n", "row 2"),
    ],
)
def test_wrong_tables_are_rejected(tmp_path, content, message):
    (tmp_path / "lenses.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        main([f"--image={tmp_path}/lenses.csv", f"--output={tmp_path}/fits"])


@pytest.mark.skipif(sys.platform == "darwin", reason="names of files must be UTF-8")
def test_undecodable_bytes_of_names_are_escaped(cheap_fit, tmp_path, capsys):
    parquet = pytest.importorskip("pyarrow.parquet")
    folder, output = tmp_path / os.fsdecode(b"lenses_\xff"), tmp_path / "fits"
    write_lens(folder / "good")
    (folder / os.fsdecode(b"\xff.fits")).write_text("not FITS")
    assert run(["fit", f"--image={folder}", f"--output={output}", "--order=4", "--format=parquet"]) == 0
    out, error = capsys.readouterr()
    assert error == ""
    message = f"{tmp_path}/lenses_\\udcff/\\udcff.fits: is not a FITS file"
    assert f"failed, {message}" in out
    bad = table(output)[0]
    assert bad["reasons"].startswith(message)
    assert parquet.read_table(output / "fits.parquet").to_pylist()[0]["reasons"] == bad["reasons"]


def test_folder_lists_compressed_files_and_no_hidden_ones(tmp_path):
    names = ["a.fits.bz2", "b.fit.gz", "c.FITS.FZ", "d.fits", "._d.fits", ".e.fits", "f.txt"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "g.fits").mkdir()
    assert [lens.name for lens in find_lenses(tmp_path)] == ["a", "b", "c", "d"]


def test_files_of_a_lens_are_found_in_any_case_and_compressed(tmp_path):
    names = ["Image.FITS", "noise.fits.gz", "PSF.fits", "mask.fits.fz"]
    for name in names:
        (tmp_path / name).touch()
    (lens,) = find_lenses(tmp_path)
    assert [path.name for path in (lens.image, lens.noise, lens.psf, lens.mask)] == names
    (tmp_path / "noise.fits").touch()
    with pytest.raises(UserError, match=r"contains noise\.fits and noise\.fits\.gz; remove one of them"):
        find_lenses(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_broken_links_and_pipes_are_errors_per_lens(tmp_path):
    (tmp_path / "one.fits").symlink_to("nothing")
    os.mkfifo(tmp_path / "two.fits")
    folder = write_lens(tmp_path / "three", size=41)
    (folder / "mask.fits").symlink_to("nothing")
    (tmp_path / "four").mkdir()
    (tmp_path / "four" / "image.fits").symlink_to("nothing")
    settings = {"pixel-scale": 0.08, "psf-fwhm": 0.2, "extension": None}
    errors = {}
    for lens in find_lenses(tmp_path):
        with pytest.raises(UserError) as caught:
            read_observation(lens, settings)
        errors[lens.name] = str(caught.value)
    assert errors == {
        "four": f"{tmp_path}/four/image.fits: cannot be opened: No such file or directory",
        "one": f"{tmp_path}/one.fits: cannot be opened: No such file or directory",
        "three": f"{folder}/mask.fits: cannot be opened: No such file or directory",
        "two": f"{tmp_path}/two.fits: is not a regular file",
    }
    os.mkfifo(tmp_path / "lenses.csv")
    with pytest.raises(UserError, match="not a regular file"):
        find_lenses(tmp_path / "lenses.csv")


def test_parquet_table_has_the_same_rows(lens, cheap_fit, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert main([f"--image={lens}", f"--output={tmp_path}/fits", "--format=parquet"]) == 0
    (row,) = parquet.read_table(tmp_path / "fits" / "fits.parquet").to_pylist()
    (text,) = table(tmp_path / "fits")
    assert list(row) == list(text)
    assert row["mass.0.theta_E"] == pytest.approx(float(text["mass.0.theta_E"]), rel=1e-8)


def test_predict_rejects_unsuitable_telescope_image(lens, tmp_path):
    """`predict --psf` finds the same lenses as `fit`."""
    output = tmp_path / "predictions.csv"
    words = ["predict", "--model=common_test", f"--psf={lens / 'psf.fits'}", f"--output={output}", str(lens)]
    assert run(words) == 1
    (row,) = csv.DictReader(output.read_text().splitlines())
    assert row["file"] == "lens_a"
    assert row["class"] == ""
    assert "needs a field of 7.5 arcsec" in row["error"] or "larger than those" in row["error"]
    assert run(words) == 2  # the output exists


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--noise=noise.fits"], "give their point-spread function with --psf"),
        (["--pixel-scale=0.04", "--fit-size=crop"], "--pixel-scale cannot be combined with --fit-size"),
    ],
)
def test_flags_of_telescope_images_are_checked(words, message, capsys):
    assert run(["predict", "--model=common_test", "lens.fits", *words]) == 2
    assert message in capsys.readouterr().err


def test_flags_for_telescope_images_are_used_or_rejected(tmp_path, monkeypatch):
    (tmp_path / "a.csv").touch()
    words = ["predict", "--model=common_test", "--psf=p.fits", f"--output={tmp_path / 'a.csv'}", "lens.fits"]
    options = parse([*words, "--overwrite"])
    used = {"model", "workdir"}  # the command loads the classifier

    class Recorder:
        def __getattr__(self, name):
            used.add(name.replace("_", "-"))
            return getattr(options, name)

    monkeypatch.setattr(predict_lenses, "find_lenses", lambda *files: [LensFiles("a", tmp_path / "a.fits")])
    predict_lenses.predict_lenses(Recorder(), None)
    values = {"tta": "d4", "fit-size": "crop"}
    for name, flag in FLAGS.items():
        word = f"--{name}={values.get(name, 'x')}" if flag.value else f"--{name}"
        if "predict" not in flag.modes or name in used:
            continue
        with pytest.raises(UserError, match=f"--psf cannot be combined with --{name}"):
            parse([*words, word])
