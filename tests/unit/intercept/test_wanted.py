"""The word survives, and a damaged file is one line."""

from pathlib import Path

import pytest

from gateway.errors import EnvironmentFailureError
from gateway.intercept.wanted import Wanted, read_wanted, record_wanted


@pytest.mark.parametrize("wanted", Wanted)
def test_what_is_recorded_is_read(tmp_path: Path, wanted: Wanted) -> None:
    path = tmp_path / "state" / "wanted.json"
    assert read_wanted(path) is Wanted.UP
    record_wanted(path, Wanted.DOWN)
    record_wanted(path, wanted)
    assert read_wanted(path) is wanted
    assert [entry.name for entry in path.parent.iterdir()] == ["wanted.json"]


@pytest.mark.parametrize("content", [b"", b"down", b"[]", b'{"wanted": "sideways"}', b"{}", b"\xff"])
def test_damaged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "wanted.json"
    path.write_bytes(content)
    with pytest.raises(EnvironmentFailureError, match="neither up nor down"):
        read_wanted(path)
    record_wanted(path, Wanted.UP)
    assert read_wanted(path) is Wanted.UP


def test_trouble(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailureError, match="Is a directory"):
        read_wanted(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFailureError, match="cannot be written"):
        record_wanted(tmp_path / "file" / "wanted.json", Wanted.UP)
