"""Training on residuals of lens fits, end to end: train, evaluate, predict."""

import csv
import json

import numpy as np
import pytest

from lensjax.data.simulated import simulated_images
from lensjax.main import main


@pytest.fixture(scope="module")
def run(tmp_path_factory, pytestconfig):
    """A finished run on a few images."""
    folder = tmp_path_factory.mktemp("run") / "run"
    sizes = {"data.num_train": 6, "data.num_validation": 3, "data.num_test": 3, "model.width": 4}
    sizes |= {"num_epochs": 1, "batch_size": 8, "eval_batch_size": 8, "preparation.crop": 32}
    sizes |= {"model.num_blocks": 0}
    words = [f"--config.{name}={value}" for name, value in sizes.items()]
    config = f"{pytestconfig.rootpath / 'configs' / 'lens_fit.py'}:quick"
    assert main(["--config", config, "--workdir", str(folder), *words]) == 0
    return folder


def test_evaluation_reproduces_the_report(run):
    report = run / "report" / "metrics.json"
    expected = json.loads(report.read_text())
    report.unlink()
    (run / "report" / "figures" / "residuals.png").unlink()
    assert main(["--mode", "evaluate", "--workdir", str(run)]) == 0
    assert json.loads(report.read_text()) == expected
    assert (run / "report" / "figures" / "residuals.png").stat().st_size > 5_000


def test_predictions_have_fit_results_and_convergence(run, tmp_path):
    images = simulated_images("common_test", split="test", num_images=3, seed=0, image_size=150).images()[
        ..., 0
    ]
    (tmp_path / "new").mkdir()
    for row, image in enumerate(images):
        np.save(tmp_path / "new" / f"{row}.npy", image)
    noise = np.random.default_rng(0).uniform(0, 1, (150, 150))
    np.save(tmp_path / "new" / "noise.npy", (noise - noise.min()) / np.ptp(noise))
    (tmp_path / "new" / "broken.npy").write_bytes(b"nothing")
    words = ["--mode", "predict", "--workdir", str(run), "--input", str(tmp_path / "new")]
    assert main([*words, "--output", str(tmp_path / "out.csv")]) == 1
    with (tmp_path / "out.csv").open() as stream:
        rows = {row["file"]: row for row in csv.DictReader(stream)}
    assert len(rows) == 5
    for row in range(3):
        found = rows[f"{row}.npy"]
        assert found["fit_converged"] == "1"
        assert 0.7 < float(found["theta_E"]) < 1.8
        assert 0 < float(found["theta_E_sigma"]) < 0.005
        assert 0.9 < float(found["reduced_chi_square"]) < 8
        assert abs(float(found["gamma1"])) < 0.4
        total = sum(float(found[f"probability_{name}"]) for name in ("no", "sphere", "vort"))
        assert total == pytest.approx(1, abs=1e-5)
    assert rows["noise.npy"]["class"] == ""
    assert "no lens was found" in rows["noise.npy"]["error"]
    assert rows["broken.npy"]["fit_converged"] == ""
    assert rows["broken.npy"]["error"]
