"""Structured logs on stderr: key=value for people, JSON on request; one line an event.

    log = structlog.get_logger()
    log.info("volume created", volume_id=...)

`structlog.contextvars` bound by the caller (method, request id) are on every line. What libraries say
through `logging` becomes lines of the same form.
"""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, Any, Literal

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

LogFormat = Literal["text", "json"]
LEVELS = ("debug", "info", "warning", "error")

_FIRST_KEYS = ("time", "level")
# A value with any of these is quoted; what would end or fake a line is escaped in any case.
_NEEDS_QUOTES = frozenset(" =\"'\\")


class Stderr:
    """Where lines go: one write(2) a line, and no error of the log's reader ever ends an RPC."""

    def __init__(self, fd: int = 2) -> None:
        self._fd = fd

    def msg(self, line: str) -> None:
        """Write a line; undecodable bytes of file names come out as escapes."""
        data = (line + "\n").encode("utf-8", "backslashreplace")
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            return

    debug = info = warning = error = critical = msg


class Forward(logging.Handler):
    """Hands what libraries log to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record as an event with the name of its logger."""
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
        try:
            event = record.getMessage()
        except (TypeError, ValueError):
            event = f"{record.msg} {record.args}"  # a library's own mistake must not end our call
        structlog.get_logger().log(level, event, logger=record.name, exc_info=record.exc_info)


def configure(level: str = "info", log_format: LogFormat = "text", fd: int = 2) -> None:
    """Set up structlog and logging for the whole process; may be called again."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=_processors(log_format),
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: Stderr(fd),
        cache_logger_on_first_use=True,  # without it each line builds a logger anew
    )
    root = logging.getLogger()
    root.handlers[:] = [Forward()]
    root.setLevel(max(number, logging.INFO))  # the debug lines of libraries are theirs
    logging.captureWarnings(capture=True)


def _processors(log_format: LogFormat) -> list[Processor]:
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
    ]
    return [*common, _as_json if log_format == "json" else _as_text]


def _as_json(_: WrappedLogger, __: str, event: EventDict) -> str:
    return json.dumps(_ordered(event), default=str)


def _as_text(_: WrappedLogger, __: str, event: EventDict) -> str:
    """One line of key=value, and below it the traceback if there is one."""
    trace = event.pop("exception", None)
    line = " ".join(f"{key}={_quoted(value)}" for key, value in _ordered(event).items())
    return f"{line}\n{trace}" if trace else line


def _ordered(event: EventDict) -> dict[str, Any]:
    first = {key: event.pop(key) for key in _FIRST_KEYS if key in event}
    return {**first, "event": event.pop("event", ""), **event}


def _quoted(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if text and text.isprintable() and _NEEDS_QUOTES.isdisjoint(text):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())
