"""Errors as clients see them: ``application/problem+json`` (RFC 9457), never a traceback."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ragpack import errors
from ragpack.service.schemas import ProblemShape

__all__ = ["Problem", "install", "problem_of", "problem_response", "said", "shape_of"]

_log = logging.getLogger(__name__)

_STATUS: tuple[tuple[type[errors.RagpackError], int], ...] = (
    (errors.CacheUnavailable, 503),
    (errors.CompressionTimeout, 503),
    (errors.RagpackError, 422),
)
_TITLES = {
    400: "The body cannot be read",
    401: "No valid key",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "The request came too slowly",
    409: "In conflict with what is there",
    413: "Too large",
    415: "Unsupported media type",
    422: "The request cannot be used",
    429: "Too many requests",
    500: "The service failed",
    502: "The upstream cannot be reached",
    503: "Not available at the moment",
    504: "The upstream does not answer",
}
_ALWAYS = (400, 401, 408, 413, 415, 422, 429)


class Problem(HTTPException):
    """An answer that says no, and why.

    ``code`` is a stable word for programs: the name of an error of :mod:`ragpack.errors`, or of a
    refusal of the service's own. It is also the reason under which the refusal is counted.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(status, detail, headers)
        self.code = code
        self.errors = [dict(row) for row in errors]


def install(app: FastAPI) -> None:
    """Make every error of ``app`` a problem."""
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(errors.RagpackError, _ragpack)
    app.add_exception_handler(Exception, _bug)


def said(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI responses for problems that any route may answer with, and for ``statuses``."""
    schema = {"$ref": f"#/components/schemas/{ProblemShape.__name__}"}
    content = {"application/problem+json": {"schema": schema}}
    return {
        status: {"description": _TITLES[status], "content": content}
        for status in sorted({*_ALWAYS, *statuses})
    }


def problem_of(error: Problem | errors.RagpackError) -> Problem:
    """``error`` as a problem."""
    if isinstance(error, Problem):
        return error
    status = next(code for kind, code in _STATUS if isinstance(error, kind))
    return Problem(status, type(error).__name__, str(error))


def shape_of(problem: Problem, request_id: str = "") -> ProblemShape:
    """``problem`` as clients read it."""
    detail = str(problem.detail)
    return ProblemShape(
        type=f"urn:ragpack:{problem.code}",
        title=_TITLES.get(problem.status_code, "Refused"),
        status=problem.status_code,
        detail=detail,
        code=problem.code,
        request_id=request_id,
        errors=problem.errors or None,
        error={"message": detail, "type": "ragpack", "code": problem.code},
    )


def problem_response(problem: Problem, request_id: str = "") -> JSONResponse:
    """The response for ``problem``."""
    content = shape_of(problem, request_id).model_dump(exclude_none=True)
    return JSONResponse(content, problem.status_code, problem.headers, "application/problem+json")


def _answer(request: Request, problem: Problem) -> JSONResponse:
    request.state.failure = problem.code
    return problem_response(problem, getattr(request.state, "request_id", ""))


def _http(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, Problem):
        return _answer(request, error)
    assert isinstance(error, HTTPException)  # noqa: S101  (registered for nothing else)
    code = {404: "NotFound", 405: "MethodNotAllowed", 413: "BodyTooLarge"}
    name = code.get(error.status_code, "BadRequest")
    return _answer(request, Problem(error.status_code, name, error.detail, headers=error.headers))


def _invalid(request: Request, error: Exception) -> JSONResponse:
    """Where the request differs from its schema, without repeating what it holds."""
    assert isinstance(error, RequestValidationError)  # noqa: S101
    rows = [{"at": ".".join(map(str, row["loc"])), "message": row["msg"]} for row in error.errors()]
    first = rows[0] if rows else {"at": "body", "message": "invalid"}
    detail = f"{first['at']}: {first['message']}"
    return _answer(request, Problem(422, "InvalidRequest", detail, errors=rows[:20]))


def _ragpack(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.RagpackError)  # noqa: S101
    return _answer(request, problem_of(error))


def _bug(request: Request, error: Exception) -> JSONResponse:
    """A fault of ours; Starlette raises it again afterwards, so that it reaches the log."""
    return _answer(request, Problem(500, "InternalError", "the fault is logged with this id"))
