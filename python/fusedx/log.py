"""The logger ``fusedx``: what was chosen, and why.  Silent below warnings unless the application, or FUSEDX_LOG, says otherwise."""

from __future__ import annotations

import logging
import os

from fusedx.engine.errors import ConfigError

log = logging.getLogger("fusedx")
_LEVELS = ("debug", "info", "warning", "error")


def follow_environment() -> None:
    """FUSEDX_LOG=debug|info|warning|error prints the logger's lines of that level to standard error."""
    level = os.environ.get("FUSEDX_LOG", "").lower()
    if not level:
        return
    if level not in _LEVELS:
        raise ConfigError(f"FUSEDX_LOG must be one of {', '.join(_LEVELS)}, got {level!r}")
    log.setLevel(level.upper())
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("fusedx %(levelname)s: %(message)s"))
        log.addHandler(handler)
