"""The command line starts without heavy modules, and every command explains itself."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

import fusedx
from fusedx.cli import COMMANDS, commands
from fusedx_process import environment

HEAVY = ("numpy", "openvino", "torch", "rich", "PIL", "onnx", "pydicom", "pyarrow")


def test_help_imports_nothing_heavy():
    code = (
        "import sys, fusedx.cli\n"
        "from click.testing import CliRunner\n"
        "before = set(sys.modules)\n"
        "for line in ([], ['--help'], ['--version'], *([name, '--help'] for name in fusedx.cli.COMMANDS)):\n"
        "    CliRunner().invoke(fusedx.cli.commands, line)\n"
        f"print([name for name in {HEAVY} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_python_dash_m(run):
    done = run("--version")
    assert done.returncode == 0 and fusedx.__version__ in done.stdout
    listed = run("--help").stdout
    assert all(f"\n  {name} " in listed for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help_and_every_command_an_example(name):
    command = commands.get_command(None, name)
    assert all(option.help for option in command.params if isinstance(option, click.Option))
    text = CliRunner().invoke(commands, [name, "--help"])
    assert text.exit_code == 0 and f"\n  fusedx {name}" in text.output


def test_usage_errors_are_2(run):
    assert run("classify").returncode == 2
    assert run("nonsense").returncode == 2
    assert run("classify", "m", "x.png", "--draws", "0").returncode == 2


def test_the_command_line_and_the_engine_bound_draws_and_seeds_alike(small_model):
    """Once the command line let through draws that the engine refuses."""
    import fusedx
    from fusedx.cli import options
    from fusedx.engine import limits
    from fusedx.engine.manifest import Manifest

    assert (options.MAX_DRAWS, options.MAX_SEED) == (limits.MAX_DRAWS, limits.MAX_SEED)
    model = fusedx.load(small_model)
    assert model.sampling(draws=options.MAX_DRAWS, seed=options.MAX_SEED).draws == options.MAX_DRAWS
    assert model._draws(options.MAX_DRAWS) == options.MAX_DRAWS and model._seed(options.MAX_SEED) == options.MAX_SEED
    text = model.manifest.to_json().replace('"default_draws": 1', f'"default_draws": {options.MAX_DRAWS + 1}')
    with pytest.raises(fusedx.ModelFormatError, match="default_draws"):
        Manifest.from_json(text)
