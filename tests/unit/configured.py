"""A configuration from text, or the one line why it is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import (
    Config,
    load,
)
from gateway.config_text import ConfigurationError


def loaded(path: Path, text: str) -> Config:
    path.write_text(text)
    return load(path)


def complaint(path: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        loaded(path, text)
    message = str(caught.value)
    assert "\n" not in message
    assert message.isprintable()
    return message
