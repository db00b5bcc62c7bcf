"""One line on the screen for each step of the demo: how long it took, what was done, what came back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable

_CALL_TIMEOUT_S = 30

Request = TypeVar("Request")
Response = TypeVar("Response")
Found = TypeVar("Found")


class StoryError(Exception):
    """A step did not give what it must; the message is for whoever watches."""


class Steps:
    """Does steps and prints them."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)

    def heading(self, text: str) -> None:
        """Begin a part."""
        self._console.print(Text(f"\n{text}", style="bold"))

    def act(self, what: str, action: Callable[[], Found], say: Callable[[Found], str] | None = None) -> Found:
        """Do something that is no call; a text that it gives is shown."""
        started = time.perf_counter()
        try:
            found = action()
        except grpc.RpcError as error:
            raise StoryError(f"{what}: {_in_words(error)}") from error
        except OSError as error:
            raise StoryError(f"{what}: {error}") from error
        self._line(started, what, say(found) if say else str(found or "done"))
        return found

    def call(
        self,
        what: str,
        method: grpc.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        say: Callable[[Response], str] = lambda _: "OK",
    ) -> Response:
        """Make a call that must be answered."""
        started = time.perf_counter()
        try:
            answer = method(request, timeout=_CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            raise StoryError(f"{what}: wanted OK, found {_in_words(error)}") from error
        self._line(started, what, say(answer))
        return answer

    def refused(
        self, what: str, method: grpc.UnaryUnaryMultiCallable[Request, Any], request: Request, wanted: grpc.StatusCode
    ) -> None:
        """Make a call that must be refused with a certain code."""
        started = time.perf_counter()
        try:
            method(request, timeout=_CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            if code_of(error) is not wanted:
                raise StoryError(f"{what}: wanted {wanted.name}, found {_in_words(error)}") from error
            self._line(started, what, f"refused: {_in_words(error)}")
            return
        raise StoryError(f"{what}: wanted {wanted.name}, found OK")

    def _line(self, started: float, what: str, result: str) -> None:
        took = f"{(time.perf_counter() - started) * 1000:8.1f} ms  "
        self._console.print(Text.assemble((took, "dim"), f"{what:<46} ", (result, "green")))


def code_of(error: Any) -> grpc.StatusCode:
    """Give the code of a failed call, which is an RpcError and a Call at once; types know only the first."""
    code: grpc.StatusCode = error.code()
    return code


def _in_words(error: Any) -> str:
    return f"{code_of(error).name}: {error.details()}"
