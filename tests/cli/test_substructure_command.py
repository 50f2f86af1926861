"""The command substructure: from files to table, pages and maps."""

import csv
import json

import numpy as np
import pytest
from helpers.fitted_lens import LOG10_MASS, POSITION, fit_data, perturber, write_observation
from helpers.small_lens import observe

from lensjax import modeling
from lensjax.main import run

FLAGS = ["--step=0.25", "--refits=0", "--order=1"]


@pytest.fixture
def lens(tmp_path, monkeypatch):
    """Folder of a lens; the fit is replaced by a finished one."""
    data = observe(1, perturber())
    fitted = fit_data(data)
    monkeypatch.setattr(modeling, "fit", lambda observation, model, *, radius: fitted)
    return write_observation(tmp_path / "lens_a", data)


def test_lens_becomes_table_page_and_maps(lens, tmp_path, capsys):
    output = tmp_path / "found"
    words = [
        "substructure",
        f"--image={lens}",
        f"--output={output}",
        "--z-lens=0.3",
        "--z-source=0.8",
        *FLAGS,
    ]
    assert run(words) == 0
    assert {file.name for file in output.iterdir()} == {
        *("settings.json", "substructure.csv", "index.html"),
        *(f"lens_a.{suffix}" for suffix in ("json", "html", "png", "npz")),
    }
    (row,) = csv.DictReader((output / "substructure.csv").read_text().splitlines())
    assert row["verdict"] == "detected"
    assert np.hypot(float(row["x"]) - POSITION[0], float(row["y"]) - POSITION[1]) < 0.25
    assert float(row["log10_mass"]) == pytest.approx(LOG10_MASS, abs=0.6)
    assert 0 <= float(row["sensitive_fraction_1e8"]) <= float(row["sensitive_fraction_1e10"]) <= 1
    content = json.loads((output / "lens_a.json").read_text())
    assert content["likelihood_ratio"] == pytest.approx(float(row["likelihood_ratio"]))
    page = (output / "lens_a.html").read_text()
    assert "Sensitivity." in page
    assert "detected" in page
    with np.load(output / "lens_a.npz") as maps:
        best = (maps["gain"] - maps["information"] / 2).max()
    assert best == pytest.approx(content["likelihood_ratio_first_order"])
    made = (output / "lens_a.json").stat().st_mtime_ns
    assert run(words) == 0  # finished already
    assert (output / "lens_a.json").stat().st_mtime_ns == made
    settings = (output / "settings.json").read_bytes()
    for more in ([], ["--overwrite"]):
        assert run(["fit", *words[1:3], "--order=1", *more]) == 2
        message = f"{output}: was created with a different command (substructure, not fit); choose another"
        errors = capsys.readouterr().err
        assert message in errors
        assert "--overwrite" not in errors
    assert (output / "settings.json").read_bytes() == settings


def test_redshifts_come_from_the_table(lens, tmp_path, capsys):
    table = tmp_path / "lenses.csv"
    table.write_text(
        f"image,noise,psf,z_lens,z_source\n{lens}/image.fits,{lens}/noise.fits,{lens}/psf.fits,,\n"
    )
    words = ["substructure", f"--image={table}", f"--output={tmp_path}/found", *FLAGS]
    assert run(words) == 2
    assert "has no redshifts" in capsys.readouterr().err
    table.write_text(table.read_text().replace("psf.fits,,", "psf.fits,0.3,0.8"))
    assert run(words) == 0
    (row,) = csv.DictReader((tmp_path / "found" / "substructure.csv").read_text().splitlines())
    assert (float(row["z_lens"]), float(row["z_source"])) == (0.3, 0.8)
