"""What of the product is compiled; that it works is for the tests that run on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import compiled

PACKAGE = compiled.ROOT / "gateway"


def test_what_is_compiled_is_code_and_no_list_of_values() -> None:
    named = {str(path) for path in compiled.modules(PACKAGE)}
    assert {
        "gateway/session/sending.py",
        "gateway/smtp/observer.py",
        "gateway/runtime/worker/turns.py",
    } <= named
    assert not named & {f"gateway/{name}.py" for name in compiled.VALUES}
    assert not [name for name in named if "__" in name]


def test_a_name_for_which_there_is_no_module_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no .*gateway/crypto/"):
        compiled.modules(tmp_path / "gateway")


@pytest.mark.parametrize("name", compiled.VALUES)
def test_every_exception_stands_in_the_tree(name: str) -> None:
    assert (PACKAGE / f"{name}.py").exists()


def test_each_state_of_the_product_has_a_tree_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("gateway", "iptables", "docs"):
        (tmp_path / part).mkdir()
    (tmp_path / "docs" / "messages.md").touch()
    (tmp_path / "constraints.txt").touch()
    module = tmp_path / "gateway" / "one.py"
    module.write_text("before")
    monkeypatch.setattr(compiled, "ROOT", tmp_path)
    before = compiled._state()
    assert compiled._state() == before
    module.write_text("after")
    assert compiled._state() != before


def test_what_the_compiler_says_is_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in compiled.MODULES:
        path = tmp_path / "gateway" / f"{name.replace('*', 'one')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        for folder in list(path.relative_to(tmp_path).parents)[:-1]:
            (tmp_path / folder / "__init__.py").touch()
    broken = tmp_path / "gateway" / "crypto" / "one.py"
    broken.write_text("x: int = 'no number'\n")
    with pytest.raises(SystemExit, match="the compiler has failed"):
        compiled.compile_in(tmp_path)
    assert "gateway/crypto/one.py:1" in capfd.readouterr().err
