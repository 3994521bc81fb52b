"""The command line, asked as an operator would."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway import cli
from gateway.cli import nightmail


def invoked(file: Path, *words: str) -> Result:
    result = CliRunner().invoke(nightmail, ["--config", str(file), *words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["nightmail", *words])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    captured = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, captured.out, captured.err
