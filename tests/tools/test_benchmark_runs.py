"""The benchmark of whole runs, with a fast program in place of the measured process."""

import importlib.util
import json
import pathlib
import sys

import pytest

TOOL = pathlib.Path(__file__).parents[2] / "tools" / "benchmarks" / "runs.py"
# Replaces measured_process.py: a run of three epochs.
PROCESS = """
import json, pathlib, signal, sys, time
function, file, *words = sys.argv[1:]
result = {
    "machine": {"device": "abacus", "cores": 1},
    "images": {"train": 60, "validation": 6, "test": 6, "seconds": 0.5},
    "cost": {"operations_per_image": 1e6, "peak_operations_per_second": 1e8, "devices": 1},
    "run": {"peak_bytes": 7, "peak_resident_bytes": 9},
    "first_step": {},
}[function]
if function == "first_step":
    import os
    compiled = pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    delay = 20 if compiled.exists() else 100
    compiled.mkdir(exist_ok=True)
    result = {"reached": time.time() + delay, "done": time.time() + delay + 5}
pathlib.Path(file).write_text(json.dumps(result))
if function == "run" and "evaluate" not in words:
    folder = pathlib.Path(words[words.index("--workdir") + 1])
    folder.mkdir(parents=True)
    aucs = [0.6, 0.9, 0.7]
    with (folder / "metrics.jsonl").open("w") as metrics:
        for number, auc in enumerate(aucs, 1):
            record = {"epoch": number, "validation_auc": auc, "seconds": 10.0 / number}
            record["images_per_second"] = 20.0 * number
            record |= {f"validation_auc_{name}": auc + 0.01 for name in ("no", "sphere", "vort")}
            metrics.write(json.dumps(record) + "\\n")
    if any("num_epochs=9" in word for word in words):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        time.sleep(60)
    if any("seed=13" in word for word in words):
        sys.exit(1)
if function == "run":
    folder = pathlib.Path(words[words.index("--workdir") + 1])
    (folder / "report").mkdir()
    areas = {"auc": 0.8, "auc_no": 0.7, "auc_sphere": 0.8, "auc_vort": 0.9}
    (folder / "report" / "metrics.json").write_text(json.dumps(areas))
"""


@pytest.fixture
def tool(tmp_path, monkeypatch, capsys):
    """Runs the command with fast processes; returns exit code, captured output and results."""
    specification = importlib.util.spec_from_file_location("benchmark_runs", TOOL)
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "benchmark_runs", module)
    specification.loader.exec_module(module)
    (tmp_path / "tools" / "benchmarks").mkdir(parents=True)
    (tmp_path / "tools" / "benchmarks" / "measured_process.py").write_text(PROCESS)
    (tmp_path / "configs").symlink_to(TOOL.parents[2] / "configs")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "IMPORTS", ("string", "json"))
    monkeypatch.setattr(module.runner, "enable_compilation_cache", lambda: None)
    output = tmp_path / "new" / "results.json"

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["benchmark_runs.py", *words, "--output", str(output)])
        code = module.runner.run(module.main, module.USAGE, name="benchmark_runs")
        results = json.loads(output.read_text()) if output.exists() else None
        return code, capsys.readouterr(), results

    return run


def test_results_are_read_from_run_files(tool, tmp_path):
    folder = tmp_path / "kept"
    code, captured, results = tool("--runs", "baseline:quick,pinn:quick", "--folder", str(folder))
    assert code == 0, captured.err
    assert len(results["images"]) == 1  # both runs have the same images
    assert results["images"][0]["data"]["num_train"] == 9_000
    found = results["runs"]["baseline:quick"]
    assert found["epochs"] == 3
    assert found["num_epochs"] == 10
    assert found["training_seconds"] == pytest.approx(60 / 20 + 60 / 40 + 60 / 60)
    assert found["epochs_seconds"] == pytest.approx(10 + 5 + 10 / 3)
    assert found["images_per_second"] == 50  # without the first epoch, which compiles
    assert found["operations_per_second"] == pytest.approx(50e6)
    assert found["share_of_peak"] == pytest.approx(0.5)
    assert found["best_epoch"] == 2
    assert found["validation"]["mean"] == 0.9
    assert found["test"] == {"no": 0.7, "sphere": 0.8, "vort": 0.9, "mean": 0.8}
    assert (found["peak_bytes"], found["peak_resident_bytes"]) == (7, 9)
    assert 0 < found["seconds"] < 5
    assert "baseline:quick: " in captured.out
    # A run that resumed from an existing folder would be too fast.
    code, captured, _ = tool("--runs", "pinn:quick", "--folder", str(folder))
    assert code == 2
    assert "pinn-quick exists" in captured.err


def test_slow_runs_are_stopped_and_failures_reported(tool):
    overrides = ("--override", "num_epochs=9", "--override", "seed=1")
    code, _, results = tool("--runs", "baseline", "--limit", "1", *overrides)
    found = results["runs"]["baseline"]
    assert code == 0
    assert (found["stopped"], found["exit_code"]) == (True, 143)
    assert (found["epochs"], found["num_epochs"]) == (3, 9)
    assert 1 < found["seconds"] < 10
    assert found["test"]["mean"] == 0.8  # evaluated afterward
    code, _, results = tool("--runs", "baseline", "--override", "seed=13")
    assert code == 1
    assert results["runs"]["baseline"]["exit_code"] == 1
    assert results["runs"]["baseline"]["test"] is None


def test_second_start_shares_the_compilation_cache(tool):
    code, _, results = tool("--start-up", "--runs", "baseline:quick", "--rounds", "2")
    assert code == 0
    assert set(results["imports"]) == {"string", "json"}
    starts = results["start_up"]["baseline:quick"]
    assert starts["first"]["reached"] == pytest.approx(100, abs=2)
    assert starts["second"]["reached"] == pytest.approx(20, abs=2)
    for each in starts.values():
        assert each["done"] - each["reached"] == pytest.approx(5, abs=0.1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--runs", "baselin"), "baselin.py: there is no such file"),
        (("--runs", "baseline:slow"), "unknown config variant 'slow'"),
        (("--override", "num_epoch=3"), "did you mean --config.num_epochs?"),
        (("--override", "num_epochs"), "needs the form FIELD=VALUE"),
        (("--override", "seeds=3"), "only single runs are measured"),
        (("--limit", "soon"), "limit"),
    ],
)
def test_invalid_command_gives_one_line_and_measures_nothing(tool, words, message):
    code, captured, results = tool(*words)
    assert code == 2
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert results is None
