"""What every RPC goes through: parsing, field limits, errors -> statuses, and one line in the log.

The only place that calls `context.abort`.
"""

from __future__ import annotations

from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.protobuf.message import DecodeError
from structlog.contextvars import bind_contextvars

from csi.pb import csi_pb2
from csi.wire.limits import STRING_BYTES, Limits
from csi.wire.statuses import status_of
from provisioner.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

    from google.protobuf.descriptor import MethodDescriptor
    from structlog.typing import FilteringBoundLogger

    Handler = grpc.RpcMethodHandler[Any, Any]
    Observe = Callable[[str, str, float], None]

_IDENTITY = "/csi.v1.Identity/"
# Asked for every few seconds by probes, before most operations by the kubelet, and for each node and class by
# csi-provisioner.
_QUIET_ENDINGS = ("Probe", "GetPluginInfo", "Capabilities", "GetCapacity")
# What a line in the log is about: the first of these that a request has.
_SUBJECTS = ("volume_id", "name")


class Interceptor(grpc.ServerInterceptor):
    """Wraps each method once; a call then costs a look into a dictionary.

    identity_pool: threads that serve Identity alone, so that `Probe` is answered, and the driver not
    restarted below running pods, while a dead disk holds all the others.
    observe: is told each call's method, code and seconds.
    """

    def __init__(
        self, log: FilteringBoundLogger, identity_pool: ThreadPoolExecutor, observe: Observe | None = None
    ) -> None:
        self._log = log
        self._observe = observe
        self._identity_pool = identity_pool
        self._request_ids = count(1)
        self._handlers: dict[str, Handler] = {}

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Give the wrapped handler of a method."""
        method = handler_call_details.method
        handler = self._handlers.get(method)
        if handler is None:
            found = continuation(handler_call_details)
            if found is None:  # not kept: its name is the caller's choice
                return self._not_served(method)
            handler = self._handlers[method] = self._wrapped(method, found)
        return handler

    def _wrapped(self, method: str, found: Handler) -> Handler:
        rpc = _Rpc(self._log, self._observe, self._request_ids, _descriptor(method), found)
        if method.startswith(_IDENTITY):
            rpc.experimental_thread_pool = self._identity_pool
        return grpc.unary_unary_rpc_method_handler(rpc, response_serializer=found.response_serializer)

    def _not_served(self, method: str) -> Handler:
        def refuse(_data: bytes, context: grpc.ServicerContext) -> NoReturn:
            fields = {"method": method[:STRING_BYTES], "request_id": next(self._request_ids)}
            started = perf_counter()
            if self._observe:
                self._observe("unknown", grpc.StatusCode.UNIMPLEMENTED.name, 0.0)
            _fail(self._log, None, context, NotImplementedError(), fields, started)

        return grpc.unary_unary_rpc_method_handler(refuse)


class _Rpc:
    """One method as gRPC calls it.

    It is given the request's bytes, so that a request that cannot be read is answered and logged like any
    other bad one.
    """

    __slots__ = (
        "_behavior",
        "_check_limits",
        "_deserialize",
        "_log",
        "_log_done",
        "_makes_volume",
        "_method",
        "_observe",
        "_request_ids",
        "_subject",
        "experimental_thread_pool",  # where gRPC looks for it, on the callable
    )

    experimental_thread_pool: ThreadPoolExecutor

    def __init__(
        self,
        log: FilteringBoundLogger,
        observe: Observe | None,
        request_ids: count[int],
        method: MethodDescriptor,
        handler: Handler,
    ) -> None:
        self._log = log
        self._observe = observe
        self._log_done = log.debug if method.name.endswith(_QUIET_ENDINGS) else log.info
        self._request_ids = request_ids
        self._method: str = method.name
        self._behavior: Any = handler.unary_unary
        self._deserialize: Any = handler.request_deserializer
        self._check_limits = Limits(method.input_type).check
        self._subject = next((name for name in _SUBJECTS if name in method.input_type.fields_by_name), None)
        self._makes_volume = self._subject == "name" and "volume" in method.output_type.fields_by_name

    def __call__(self, data: bytes, context: grpc.ServicerContext) -> Any:
        """Answer one call with its response message."""
        started = perf_counter()
        fields = {"method": self._method, "request_id": next(self._request_ids)}
        try:
            response = self._answer(data, context, fields)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a status for it
            _fail(self._log, self._observe, context, error, fields, started)
        seconds = perf_counter() - started
        self._log_done("rpc", **fields, code="OK", duration_ms=_milliseconds(seconds))
        if self._observe:
            self._observe(self._method, "OK", seconds)
        return response

    def _answer(self, data: bytes, context: grpc.ServicerContext, fields: dict[str, Any]) -> Any:
        request = self._parsed(data)
        if self._subject is not None:
            fields[self._subject] = getattr(request, self._subject)[:STRING_BYTES]
        bind_contextvars(**fields)  # for the lines that the domain writes; the context ends with the call
        self._check_limits(request, len(data))
        response = self._behavior(request, context)
        if self._makes_volume:
            fields["volume_id"] = response.volume.volume_id
        return response

    def _parsed(self, data: bytes) -> Any:
        try:
            return self._deserialize(data)
        except DecodeError as error:
            raise InvalidRequest(
                f"wanted the {self._method} request of csi.v1, found {len(data)} bytes that cannot be read as one"
            ) from error


def _fail(
    log: FilteringBoundLogger,
    observe: Observe | None,
    context: grpc.ServicerContext,
    error: Exception,
    fields: dict[str, Any],
    started: float,
) -> NoReturn:
    """Log an error, once, and end the call with its status."""
    code, message = status_of(error, fields["method"], fields["request_id"])
    seconds = perf_counter() - started
    fields |= {"code": code.name, "duration_ms": _milliseconds(seconds)}
    if observe:
        observe(fields["method"], code.name, seconds)
    if code is grpc.StatusCode.INTERNAL:
        log.error("rpc", **fields, error=repr(error), exc_info=error)
    else:
        log.warning("rpc", **fields, error=message)
    context.abort(code, message)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _descriptor(method: str) -> MethodDescriptor:
    """Find '/csi.v1.Service/Method' in the interface."""
    service, _, name = method.rpartition("/")
    return csi_pb2.DESCRIPTOR.services_by_name[service.rpartition(".")[2]].methods_by_name[name]
