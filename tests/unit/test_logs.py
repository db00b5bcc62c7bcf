"""Lines of the log: one an event, key=value or JSON, whoever speaks."""

from __future__ import annotations

import json
import logging
import os
import warnings
from typing import TYPE_CHECKING

import pytest
import structlog

from csi import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def configured() -> Iterator[Callable[..., Callable[[], str]]]:
    """Give a function that sets logs up and gives another that reads what was written."""
    root = logging.getLogger()
    fds: list[int] = []
    before = (root.handlers[:], root.level)

    def configure(level: str = "info", log_format: logs.LogFormat = "text") -> Callable[[], str]:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        fds.extend((reader, writer))
        logs.configure(level, log_format, writer)
        return lambda: os.read(reader, 65536).decode()

    yield configure
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level = before
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    for fd in fds:
        os.close(fd)


def test_text_is_key_value_with_time_and_level_first(configured: Callable[..., Callable[[], str]]) -> None:
    read = configured()
    structlog.get_logger().info("volume created", volume_id="a.b", size_bytes=1, ok=True, nothing=None)
    line = read()
    assert line.startswith("time=20")
    assert line.endswith('Z level=info event="volume created" volume_id=a.b size_bytes=1 ok=true nothing=None\n')


def test_json_has_the_same_keys(configured: Callable[..., Callable[[], str]]) -> None:
    read = configured(log_format="json")
    structlog.get_logger().warning("odd", name="ä\n", path=os.fsencode("/x"))
    line = json.loads(read())
    assert list(line)[:3] == ["time", "level", "event"]
    assert (line["level"], line["event"], line["name"], line["path"]) == ("warning", "odd", "ä\n", "b'/x'")


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("value", ["a\nlevel=info event=fake", "\x1b[31m", "a b", 'a"b', "a=b", "", "\udcff", "a\\b"])
def test_no_value_breaks_or_fakes_a_line(
    configured: Callable[..., Callable[[], str]], log_format: logs.LogFormat, value: str
) -> None:
    read = configured(log_format=log_format)
    structlog.get_logger().info("rpc", name=value)
    text = read()
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    assert log_format == "json" or text.rstrip().split(" ", 2)[2].startswith("event=rpc name=")


def test_a_level_hides_what_is_below(configured: Callable[..., Callable[[], str]]) -> None:
    read = configured("warning")
    structlog.get_logger().info("hidden")
    structlog.get_logger().error("seen")
    assert "hidden" not in (text := read())
    assert "event=seen" in text


def test_what_is_bound_for_a_call_is_on_each_line(configured: Callable[..., Callable[[], str]]) -> None:
    read = configured()
    with structlog.contextvars.bound_contextvars(method="Probe", request_id=7):
        structlog.get_logger().info("inside")
    structlog.get_logger().info("outside")
    inside, outside = read().splitlines()
    assert {"method=Probe", "request_id=7"} <= set(inside.split())
    assert "Probe" not in outside


def test_a_traceback_stands_below_its_line_or_in_its_json(configured: Callable[..., Callable[[], str]]) -> None:
    read = configured()
    _log_an_error()
    text = read()
    assert "event=broken\nTraceback (most recent call last):\n" in text
    assert text.endswith("ZeroDivisionError: division by zero\n")
    read = configured(log_format="json")
    _log_an_error()
    assert json.loads(read())["exception"].endswith("ZeroDivisionError: division by zero")


def _log_an_error() -> None:
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        structlog.get_logger().exception("broken")


def test_libraries_speak_in_the_same_form(configured: Callable[..., Callable[[], str]]) -> None:
    read = configured(log_format="json")
    logging.getLogger("grpc._server").error("Exception %s", "calling")
    logging.getLogger("library").debug("chatter")
    line = json.loads(read())
    assert (line["level"], line["event"], line["logger"]) == ("error", "Exception calling", "grpc._server")


def test_odd_records_of_libraries_are_logged_all_the_same(configured: Callable[..., Callable[[], str]]) -> None:
    read = configured()
    logging.getLogger("library").log(35, "between the levels")
    logging.getLogger("library").error("wrong %d", "number")
    odd, wrong = read().splitlines()
    assert "level=warning" in odd
    assert "wrong %d" in wrong


def test_warnings_are_lines_too(configured: Callable[..., Callable[[], str]]) -> None:
    read = configured()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)  # catch_warnings put the plain way of showing back
        logging.captureWarnings(capture=True)
        warnings.warn("mind the gap", UserWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    assert "mind the gap" in read()


def test_a_reader_that_went_away_ends_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        logs.Stderr(writer).msg("nobody reads this")
    finally:
        os.close(writer)
