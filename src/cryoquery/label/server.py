"""The HTTP interface of the page: the requests, and what answers them.

Every answer about the project comes from `service.LabelService` in one thread of its own, so that
commands are recorded one after the other; pictures are made in other threads, a few at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Scope

from cryoquery.errors import CryoqueryError, explain
from cryoquery.label.download import Format, labels_file
from cryoquery.label.learning import Learning
from cryoquery.label.names import TaskNames
from cryoquery.label.pages import INDEX, StaticFile, with_fresh_addresses
from cryoquery.label.picture_requests import router as picture_router
from cryoquery.label.picture_requests import send
from cryoquery.label.pictures import Pictures
from cryoquery.label.requests import CommandsRequest, LeaseRequest, PersonRequest
from cryoquery.label.security import LINK_PATH, Guard, RefusedError
from cryoquery.label.service import LabelService
from cryoquery.label.sessions import Session, Sessions
from cryoquery.label.workers import Workers
from cryoquery.project.backups import back_up_by_itself
from cryoquery.project.events import LogError
from cryoquery.project.folder import Project
from cryoquery.project.labeling import LeaseError, UnknownTaskError
from cryoquery.project.step.slurm import look_after
from cryoquery.project.summary import summarize

JOB_SECONDS = 30.0
"""How often Slurm is asked for the job that a step waits in."""
BACKUP_SECONDS = 3600.0
"""How often it is looked whether today's backup is there."""
POLL_SECONDS = 0.5
"""How often the folder of steps is looked at."""
ALIVE_SECONDS = 1.0
"""How often it is looked whether the process that learns is there."""
LONGEST_TASK = 40
ASIDE = 3
"""Threads for what is asked rarely and may take long."""
MOST_BESIDES = 20
"""Tasks that a page holds and need not be told of again."""
NOTHING: list[str] = []

Answer = TypeVar("Answer")
router = APIRouter()


def create_app(
    service: LabelService,
    sessions: Sessions,
    pages: dict[str, StaticFile],
    *,
    opened: Callable[[str | None], None] = lambda person: None,
    admitted: Callable[[Scope], None] = lambda scope: None,
    poll_seconds: float = POLL_SECONDS,
    learning: Learning | None = None,
) -> ASGIApp:
    """The application, guarded. It closes ``service`` when it ends.

    Args:
        service: of the project; used in one thread only.
        sessions: who is let in.
        pages: the page's files, see `pages.load_pages`.
        opened: called when a link was used, with the person it was made for.
        admitted: called with each request that a session has signed.
        poll_seconds: how often to look for new steps.
        learning: what learns meanwhile, started with the application and ended with it; None: nothing.
    """
    app = FastAPI(
        openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False,
        lifespan=partial(_lifespan, poll_seconds=poll_seconds),
    )  # fmt: skip
    app.state.service = service
    app.state.learning = learning
    app.state.service_thread = ThreadPoolExecutor(1, thread_name_prefix="service")
    app.state.pictures = Pictures(service.project)
    app.state.aside = Workers(ASIDE, "aside")
    app.state.names = TaskNames(service.project.id, len(service.project.items))
    app.state.sessions = sessions
    app.state.pages = with_fresh_addresses(pages, secrets.token_hex(4))
    app.include_router(router)
    app.include_router(picture_router)
    for kind, answer in (
        (RequestValidationError, _invalid), (HTTPException, _http_error),
        (CryoqueryError, _mistake), (OSError, _mistake),
    ):  # fmt: skip
        app.add_exception_handler(kind, answer)
    return Guard(app, sessions, opened, admitted)


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI, poll_seconds: float) -> AsyncIterator[None]:
    project: Project = app.state.service.project
    learning: Learning | None = app.state.learning
    looks: list[tuple[float, Callable[[], Awaitable[object]]]] = [
        (poll_seconds, lambda: _ask(app, LabelService.notice_steps)),
        (JOB_SECONDS, lambda: app.state.aside.do(partial(look_after, project.path))),
        (
            BACKUP_SECONDS,
            lambda: app.state.aside.do(partial(back_up_by_itself, project, _complain, daily=True)),
        ),
    ]
    if learning is not None:
        looks.append((ALIVE_SECONDS, lambda: app.state.aside.do(learning.look)))
    watching = [asyncio.create_task(_watch(seconds, look)) for seconds, look in looks]
    try:
        yield
    finally:
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        if learning is not None:
            learning.close()
        app.state.pictures.close()
        app.state.aside.close()
        await _ask(app, LabelService.close)
        app.state.service_thread.shutdown()


async def _watch(seconds: float, look: Callable[[], Awaitable[object]]) -> None:
    """Look every so many seconds; whatever a damaged file brings about is said once, and looks go on."""
    said = None
    while True:
        try:
            await look()
            said = None
        except Exception as error:
            sentence = explain(error) or repr(error)
            if said != sentence:
                said = sentence
                _complain(sentence)
        await asyncio.sleep(seconds)


def _complain(sentence: str) -> None:
    print(f"cryoquery: {sentence}", file=sys.stderr)


async def _ask(app: Any, question: Callable[..., Answer], *arguments: Any) -> Answer:
    """What the service answers, from its thread."""
    loop = asyncio.get_running_loop()
    task = partial(question, app.state.service, *arguments)
    return await loop.run_in_executor(app.state.service_thread, task)


def _session(request: Request) -> Session:
    session: Session = request.state.session
    return session


def _person(request: Request) -> str:
    person = _session(request).person
    if person is None:
        raise RefusedError(403, "say who you are first")
    return person


Person = Annotated[str, Depends(_person)]
Task = Annotated[str, Path(max_length=LONGEST_TASK)]


@router.get("/")
async def index(request: Request) -> Response:
    """The page."""
    return _static(request, INDEX)


@router.get(LINK_PATH + "{link}")
async def linked(request: Request) -> Response:
    """The page, as a link opens it; what another program at this address left in the cache is forgotten."""
    answer = _static(request, INDEX)
    answer.headers["Clear-Site-Data"] = '"cache"'
    return answer


@router.get("/static/{prefix}/{name:path}")
async def static(request: Request, name: str) -> Response:
    """A file of the page, see `pages.with_fresh_addresses`."""
    return _static(request, name)


def _static(request: Request, name: str) -> Response:
    file: StaticFile | None = request.app.state.pages.get(name)
    if file is None:
        raise RefusedError(404, "there is no such file")
    is_known = request.headers.get("if-none-match") == file.etag
    return send(file.etag, None if is_known else file.content, file.media_type, "no-cache")


@router.get("/api/session")
async def session(request: Request) -> Response:
    """Who is logged in, and what there is to label."""
    return JSONResponse(await _ask(request.app, LabelService.session, _session(request).person))


@router.post("/api/session")
async def name_session(request: Request, named: PersonRequest) -> Response:
    """Say who sits at this browser."""
    renamed = request.app.state.sessions.rename(_session(request), named.person)
    return JSONResponse(await _ask(request.app, LabelService.session, renamed.person))


@router.get("/api/queue")
async def queue(request: Request) -> Response:
    """What to label next, and why."""
    answer = await _ask(request.app, LabelService.queue, _session(request).person)
    for entry in answer["entries"]:
        entry["task"] = request.app.state.names.public(entry["task"])
    return JSONResponse({**answer, "learns": request.app.state.learning is not None})


@router.post("/api/lease")
async def lease(request: Request, wanted: LeaseRequest, person: Person) -> Response:
    """Take a task, the next one if none is named."""
    named = None if wanted.task is None else _task(request, wanted.task)
    return _send_task(request, await _ask(request.app, LabelService.lease, person, named))


@router.get("/api/ahead")
async def ahead(
    request: Request, person: Person, besides: Annotated[list[str], Query(max_length=MOST_BESIDES)] = NOTHING
) -> Response:
    """The document of the task that comes next, besides some."""
    named = [_task(request, name) for name in besides]
    return _send_task(request, await _ask(request.app, LabelService.ahead, person, named))


@router.get("/api/tasks/{task}")
async def task(request: Request, task: Task, person: Person) -> Response:
    """A task's document."""
    return _send_task(request, await _ask(request.app, LabelService.task, person, _task(request, task)))


def _task(request: Request, name: str) -> str:
    """The task that the browser knows by ``name``."""
    state = request.app.state
    task: str = state.names.task(name, state.service.state.tasks)
    return task


def _send_task(request: Request, answer: dict[str, Any]) -> Response:
    if answer["task"] is not None:
        answer["task"] = request.app.state.names.public(answer["task"])
    return JSONResponse(answer)


@router.post("/api/tasks/{task}/commands")
async def commands(request: Request, task: Task, wanted: CommandsRequest, person: Person) -> Response:
    """Record what a person did; answered when it is on the disk."""
    return JSONResponse(
        await _ask(request.app, LabelService.record, person, _task(request, task), wanted.commands)
    )


@router.get("/api/status")
async def status(request: Request) -> Response:
    """How far labeling has come."""
    service: LabelService = request.app.state.service
    # A state never changes, so that other threads may look at it.
    return JSONResponse(await request.app.state.aside.do(partial(summarize, service.project, service.state)))


@router.get("/api/export")
async def export(
    request: Request,
    what: Annotated[Literal["labels"], Query()] = "labels",  # noqa: ARG001
    file_format: Annotated[Format, Query(alias="format")] = "star",
) -> Response:
    """The labels as a file to keep."""
    service: LabelService = request.app.state.service
    task = partial(labels_file, service.project, service.state, file_format)
    name, content = await request.app.state.aside.do(task)
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type="application/octet-stream", headers=headers)


def _error(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"error": sentence}, status)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid" or first["loc"] == ("body",):
        return _error(400, "the body is not the JSON that is expected here")
    place = ".".join(str(part) for part in first["loc"][1:])
    return _error(422, f"{place}: {first['msg']}")


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentences = {404: "there is nothing here", 405: "this is not answered here", 400: "the body is no JSON"}
    own = isinstance(error, RefusedError)
    sentence = error.detail if own else sentences.get(error.status_code, error.detail)
    return JSONResponse({"error": sentence}, error.status_code, error.headers if own else None)


async def _mistake(_: Request, error: Exception) -> Response:
    sentence = explain(error) or str(error)
    if isinstance(error, UnknownTaskError):
        return _error(404, sentence)
    if isinstance(error, LeaseError):
        return _error(409, sentence)
    if isinstance(error, (OSError, LogError)):
        # Not 422: the page would discard what it sent.
        _complain(sentence)
        return _error(503, sentence)
    return _error(422, sentence)
