"""Options of the command line, and messages for invalid options."""

import pathlib
import re
import sys

import pytest

from lensjax.cli import runner
from lensjax.cli.configs import load_config
from lensjax.cli.flags import parse_flags
from lensjax.cli.help import COMMANDS, command_module, fields_page, help_text
from lensjax.cli.options import FLAGS, MODES, parse
from lensjax.config import FIELDS, default_config, flatten
from lensjax.errors import Interrupted, NonFiniteLossError, UserError
from lensjax.main import run

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
LENS_FIT = str(CONFIGS / "lens_fit.py")
PINN = str(CONFIGS / "pinn.py")
BASELINE = str(CONFIGS / "baseline.py")
CONFIG_FILE = """
from lensjax.config import default_config

def get_config(variant):
    config = default_config()
    {line}
    return config
"""


def test_default_folder_is_named_after_the_config():
    options = parse(["--config", f"{PINN}:quick"])
    assert options.mode == "train"
    assert options.workdir == pathlib.Path("runs/pinn-quick")
    assert options.config.model.name == "lens_vit_pinn"


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_configs_have_full_size_and_a_quick_variant(config):
    full = parse([f"--config={config}"]).config
    sizes = full.data.num_train, full.data.num_validation, full.batch_size, full.num_epochs
    assert sizes == (30_000, 7_500, 32, 50)
    quick = parse([f"--config={config}:quick"]).config
    assert quick.data.num_train < 30_000
    assert quick.model.name == full.model.name


def test_any_field_can_be_changed():
    words = ["--config", PINN, "--config.optimizer.learning_rate=3e-3", "--config.data.source=x.zip"]
    config = parse(words).config
    assert config.optimizer.learning_rate == 3e-3
    assert config.data.source == "x.zip"


@pytest.mark.parametrize(("file", "rate"), [(BASELINE, 1e-4), (PINN, 2e-4)])
def test_optimizer_is_that_of_the_reference(file, rate):
    config = parse(["--config", file]).config
    optimizer = config.optimizer
    assert (optimizer.learning_rate, optimizer.weight_decay) == (rate, 0.01)
    assert (optimizer.b1, optimizer.b2, optimizer.eps) == (0.9, 0.999, 1e-8)
    assert config.augmentation.max_rotation == 10


def test_pinn_has_loss_and_dropout_of_the_reference():
    config = parse(["--config", PINN]).config
    assert config.loss.physics_weight == 0.01
    assert config.model.dropout_rate == 0.3


BAD = {
    "no config": ([], "train needs --config FILE"),
    "mode": (["--config", PINN, "--mode", "tran"], "--mode=tran: .*<train|evaluate|predict>"),
    "flag": (["--config", PINN, "--wrkdir=x"], "'wrkdir'.*Did you mean: workdir"),
    "word": (["--config", PINN, "train"], "'train' is not a flag"),
    "config file": (["--config", "configs/pin.py"], "configs/pin.py: there is no such file"),
    "variant": (["--config", f"{PINN}:quik"], "unknown config variant 'quik'; known variants: fast, quick"),
    "field": (
        ["--config", PINN, "--config.optimizer.lerning_rate=1"],
        "no such field; did you mean --config.optimizer.learning_rate?",
    ),
    "field's group": (
        ["--config", PINN, "--config.optimiser.learning_rate=1"],
        "no such field; did you mean --config.optimizer.learning_rate?",
    ),
    "type": (["--config", PINN, "--config.seed=abc"], "--config.seed=abc: invalid literal"),
    "range": (["--config", PINN, "--config.batch_size=0"], "batch_size=0: must be 1 to 65536"),
    "rate": (["--config", PINN, "--config.model.dropout_rate=1.5"], "dropout_rate=1.5: .* 0 to 0.99"),
    "no stages": (["--config", PINN, "--config.model.stage_sizes=()"], r"stage_sizes=\(\): must be"),
    "empty stage": (
        ["--config", PINN, "--config.model.stage_sizes=2,0"],
        r"stage_sizes=\(2, 0\): must be 1 to 8 integers from 1 to 1000, such as \(2, 2, 2, 2\)",
    ),
    "words for stages": (["--config", PINN, "--config.model.stage_sizes=a"], "1 to 8 integers from 1"),
    "heads": (["--config", PINN, "--config.model.num_heads=7"], "must be a multiple of"),
    "fit": (["--config", LENS_FIT, "--config.data.fit=comon"], "fit='comon': .*mean 'common_test'"),
    "residuals without a fit": (
        ["--config", LENS_FIT, "--config.data.fit=none"],
        "'image_and_residual': requires a lens fit; set config.data.fit='common_test'",
    ),
    "residuals for another model": (
        ["--config", PINN, "--config.model.input=residual"],
        "needs config.model.name='lens_fit_net'",
    ),
    "fit for another model": (
        ["--config", PINN, "--config.data.fit=general"],
        "lens_vit_pinn does not use residuals; set config.model.name='lens_fit_net'",
    ),
    "another model's input": (
        ["--config", LENS_FIT, "--config.model.input=gradient_product"],
        "lens_fit_net has no such input; use 'image_and_residual'",
    ),
    "field without config": (["--workdir", "x", "--config.seed=1"], "'config.seed'"),
    "switch": (
        ["--config", PINN, "--config.augmentation.dihedral=yes"],
        r"dihedral=yes: must be true or false$",
    ),
    "unquoted glob": (
        ["predict", "--workdir", "x", "--input", str(CONFIGS), PINN, "--output=y"],
        "pinn.* was also given.*quotes",
    ),
    "unquoted glob of a word": (
        ["--config", PINN, str(CONFIGS)],
        "configs: only one path .* quote a pattern",
    ),
    "nan": (["predict", "--model=common_test", "x", "--pixel-scale=nan"], "nan is not a finite number"),
    "infinity": (["predict", "--model=common_test", "x", "--pixel-scale=inf"], "inf is not a finite number"),
    "source to predict": (
        ["predict", "--workdir", "x", "y", "--config.data.source=z"],
        "evaluate or compare",
    ),
    "predict without input": (["--mode", "predict", "--workdir", "x"], "needs --input"),
    "evaluate without run": (["--mode", "evaluate"], "needs --workdir FOLDER"),
}


@pytest.mark.parametrize(("words", "message"), BAD.values(), ids=BAD.keys())
def test_invalid_commands_are_rejected_in_one_line(words, message):
    with pytest.raises(UserError, match=message) as refused:
        parse(words)
    assert "\n" not in str(refused.value)


BAD_FILES = {
    "error": ("config = 1 / 0", "ZeroDivisionError: division by zero"),
    "two lines": ("raise ValueError('a\\nb')", "ValueError: a b"),
    "no config": ("config = 3", "get_config does not return a ConfigDict"),
    "unknown field": (
        "config.optimizer.lerning_rate = 1",
        r"config\.optimizer\.lerning_rate: .* no such field; did you mean config\.optimizer\.learning_rate\?",
    ),
    "unknown group": ("config.optimiser = {'learning_rate': 1.0}", "did you mean .*optimizer.learning_rate"),
    "removed field": ("del config.model.width", "config.model.width: this field is missing"),
    "replaced group": ("config.loss = {'physics_weight': 1}", "label_smoothing: this field is missing"),
    "text": ("config.seed = 'a'", "'seed'.* a is of original type"),
    "nothing": ("config.data.source = None", "config.data.source=None: must be text"),
    "switch for a number": ("config.seed = True", "config.seed=True: must be an integer"),
}


@pytest.mark.parametrize(("line", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_invalid_config_file_is_named_in_one_line(tmp_path, line, message):
    file = tmp_path / "mine.py"
    file.write_text(CONFIG_FILE.format(line=line))
    with pytest.raises(UserError, match=rf"^--config .*mine\.py: .*{message}") as refused:
        parse(["--config", str(file)])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import sys\nsys.exit(0)", "ends the program"),
        ("def get_config(name):\n    raise SystemExit", "ends the program"),
        ("config = 1", "does not define get_config"),
    ],
)
def test_missing_config_gives_one_line_and_code_2(tmp_path, capsys, text, message):
    (tmp_path / "mine.py").write_text(text)
    assert run(["train", "--config", str(tmp_path / "mine.py")]) == 2
    errors = capsys.readouterr().err
    assert f"{tmp_path / 'mine.py'}: " in errors
    assert message in errors
    assert errors.count("\n") == 1


def test_config_file_may_replace_a_group(tmp_path):
    """The values have the types of the default config, as if they were set one by one."""
    file = tmp_path / "mine.py"
    line = "config.loss = {'physics_weight': 1, 'label_smoothing': 0}; config.model.stage_sizes = [2, 3]"
    file.write_text(CONFIG_FILE.format(line=line))
    config = parse(["--config", str(file)]).config
    expected = default_config()
    expected.loss.physics_weight, expected.model.stage_sizes = 1.0, (2, 3)
    assert repr(config.to_dict()) == repr(expected.to_dict())


def raising(error):
    def main(arguments):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("x.npy: truncated"), 2, "lensjax: x.npy: truncated\n"),
        (NonFiniteLossError("the loss became nan"), 1, "lensjax: the loss became nan\n"),
        (Interrupted(15), 143, "lensjax: stopped by SIGTERM; progress saved"),
        (KeyboardInterrupt(), 130, "lensjax: stopped\n"),
    ],
)
def test_errors_have_exit_codes_and_one_line(monkeypatch, capsys, error, code, message):
    monkeypatch.setattr(sys, "argv", ["lensjax"])
    assert runner.run(raising(error), "", name="lensjax") == code
    streams = capsys.readouterr()
    assert streams.err.startswith(message)
    assert streams.err.count("\n") == 1


@pytest.mark.parametrize("name", FIELDS)
def test_help_of_training_describes_every_field(name):
    shown = re.search(rf"^  {re.escape(name)}=(\S*)", help_text(["train", "--help"]), re.MULTILINE)
    config = parse(["--config", BASELINE, f"--config.{name}={shown[1]}"]).config
    assert flatten(config.to_dict())[name] == FIELDS[name].default


@pytest.mark.parametrize("mode", [*MODES, ""])
def test_help_has_80_columns_and_flags_of_its_command(monkeypatch, capsys, mode):
    words = [mode, "--help"] if mode else ["--help"]
    monkeypatch.setattr(sys, "argv", ["lensjax", *words])
    assert run() == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    for name, flag in FLAGS.items():
        assert (f"\n  --{name}" in text) == (mode in flag.modes), name


def test_config_page_is_generated_from_the_table():
    page = pathlib.Path(__file__).parents[2] / "docs" / "config.md"
    assert page.read_text() == fields_page(), "run python docs/site/config_page.py"


def beyond(field):
    """Values just beyond the limits of a field, and a value that is not among its choices."""
    step = 1 if isinstance(field.default, int) else 1e-3
    low = [] if field.low is None else [field.low - step]
    high = [] if field.high is None else [field.high + step]
    return low + high + (["wrong"] if field.choices else [])


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, field in FIELDS.items() for value in beyond(field)]
)
def test_values_beyond_the_limits_are_rejected(name, value):
    allowed = re.escape(FIELDS[name].allowed)
    with pytest.raises(UserError, match=f"config.{name}=.*: (must be|not one of) {allowed}"):
        parse(["--config", BASELINE, f"--config.{name}={value}"])


def test_command_may_be_the_first_argument():
    one = parse(["evaluate", "--workdir", "x"])
    assert one == parse(["--mode", "evaluate", "--workdir", "x"])
    with pytest.raises(UserError, match="give only one of them"):
        parse(["evaluate", "--mode", "train", "--workdir", "x"])


def test_home_folder_is_replaced_in_every_path(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    home, paths = pathlib.Path("/home/ada/x"), {"FILE", "FOLDER", "PATH"}
    unknown_user = pathlib.Path("~no-such-user/x")
    for table in (FLAGS, *(command_module(name).FLAGS for name in COMMANDS)):
        for name in (name for name, flag in table.items() if flag.value in paths and name != "workdir"):
            assert parse_flags(table, [f"--{name}=~/x"])[name] == home
            assert parse_flags(table, [f"--{name}={unknown_user}"])[name] == unknown_user
            with pytest.raises(UserError, match=f"{name}=: is empty"):
                parse_flags(table, [f"--{name}="])
    assert parse(["predict", "--workdir=~/x", "~/x"]).workdir == home
    assert parse(["predict", "--workdir=~/x", "~/x"]).input == home
    assert parse(["compare", "--workdir=~/x,y"]).workdirs == (home, pathlib.Path("y"))


def test_configs_are_found_by_name():
    assert parse(["train", "--config", "pinn:quick"]).config.model.name == "lens_vit_pinn"
    assert load_config("lens_fit").to_dict() == load_config(LENS_FIT).to_dict()


def test_command_without_arguments_prints_the_overview(capsys):
    assert run([]) == 0
    assert "lensjax COMMAND --help" in capsys.readouterr().out
