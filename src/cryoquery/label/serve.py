"""Serve a project's page on this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import getpass
import logging
import os
import resource
import secrets
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from cryoquery.errors import ProjectError
from cryoquery.label.connections import MOST_STRANGERS, Connections
from cryoquery.label.learning import Learning
from cryoquery.label.pages import load_pages
from cryoquery.label.security import LINK_PATH
from cryoquery.label.server import create_app
from cryoquery.label.service import LabelService, open_service
from cryoquery.label.sessions import Sessions, checked_name
from cryoquery.project.folder import Project
from cryoquery.storage.atomic import write_bytes

ADDRESS = "127.0.0.1"
FIRST_PORT = 8765
N_PORTS = 50
"""So many are tried, from the first one, where none was asked for."""
PORT_FILE = ".port"
"""In the project: where it was served last, since what a browser has not sent belongs to an address with its
port."""
LINKS_FILE = ".links"
KEEP_ALIVE_SECONDS = 30
OPEN_FILES = 2500
BACKLOG = 1024
GRACE_SECONDS = 1


def _print(line: str) -> None:
    print(line, flush=True)


def serve(
    project: Path,
    *,
    port: int | None = None,
    people: Sequence[str] = (),
    by_socket: bool = False,
    say: Callable[[str], None] = _print,
    hide_links: bool = False,
    learning: bool = True,
) -> None:
    """Serve the page of a project until Ctrl-C or SIGTERM.

    Args:
        project: its folder.
        port: on loopback; None: the one that the project had last, or the first free one from 8765 on.
        people: a link is shown for each; without them one link, and the page asks for the name.
        by_socket: listen on a socket in a folder of this user instead, which only this user's ``ssh -L``
            reaches; ``port`` is that of the machine with the browser.
        say: prints a line for the person at the terminal.
        hide_links: they go to a file that only this user can read, since what is said goes to one that
            perhaps others can.
        learning: another process of low priority does a step whenever something new is labeled; not for a
            project whose steps are jobs of Slurm.

    Raises:
        ProjectError: there is no project, none of its micrographs is where it was, it is served already,
            or the port is in use.
        DataError: the page's files are missing.
        PersonError: a name that cannot be used.
    """
    names = _checked_names(people)
    pages = load_pages()
    service = open_service(project)
    with contextlib.ExitStack() as stack:
        stack.callback(service.close)
        _check_micrographs(service.project, say)
        sessions = Sessions()
        last = service.project.path / PORT_FILE
        if by_socket:
            port = port or _port_in(last) or FIRST_PORT
            listening = stack.enter_context(_private_socket(stack))
            target = listening.getsockname()
        else:
            listening = stack.enter_context(_listen(port, _port_in(last)))
            port = listening.getsockname()[1]
            target = f"{ADDRESS}:{port}"
        with contextlib.suppress(OSError):
            write_bytes(last, f"{port}\n".encode())

        hidden = service.project.path / LINKS_FILE
        if hide_links:
            hidden.unlink(missing_ok=True)
            stack.callback(hidden.unlink, missing_ok=True)

        def show(person: str | None) -> None:
            whose = f"  {person}" if person else ""
            # Always another path: a page that is open already, of whomever, is not told the secret behind #.
            path = f"{LINK_PATH}{secrets.token_hex(4)}"
            line = f"  http://{ADDRESS}:{port}{path}#token={sessions.new_link(person)}{whose}"
            if hide_links:
                _append_privately(hidden, line)
                line = f"  the link at the end of {hidden}, which only {_user()} can read{whose}"
            say(line)

        def opened(person: str | None) -> None:
            say(f"opened{f' by {person}' if person else ''}; for another browser:")
            show(person)

        _introduce(service, f"{port}:{target}", say)
        for person in names or (None,):
            show(person)
        say("Ctrl-C ends it; all that is shown as saved is kept.")
        connections = Connections(min(MOST_STRANGERS, _allow_open_files() // 2))
        app = create_app(
            service, sessions, pages,
            opened=opened, admitted=lambda scope: connections.know(scope["client"]),
            learning=_learning_of(service.project) if learning else None,
        )  # fmt: skip
        with contextlib.suppress(KeyboardInterrupt):
            _server_of(app, connections).run(sockets=[listening])
    say("ended; run the same command again to go on")


def _checked_names(people: Sequence[str]) -> list[str]:
    names = [checked_name(name) for name in people]
    if len(set(names)) < len(names):
        raise ProjectError(f"--people {','.join(names)}: each name once")
    return names


def _learning_of(project: Project) -> Learning | None:
    return Learning(project.path) if project.config.executor == "local" else None


def _append_privately(file: Path, line: str) -> None:
    # Private from the start: between making a file and closing it to others, it could be opened.
    descriptor = os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(f"{line}\n")


def _is_news(record: logging.LogRecord) -> bool:
    """Whether the server should say it: not that it gives up at its end what is still being answered."""
    error, said = record.exc_info[1] if record.exc_info else None, record.getMessage()
    is_of_the_end = said.startswith("Cancel ") or asyncio.CancelledError.__name__ in said
    return not (isinstance(error, asyncio.CancelledError) or is_of_the_end)


def _server_of(app: ASGIApp, connections: Connections) -> uvicorn.Server:
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    config = uvicorn.Config(
        app,
        http=connections.protocol, loop="asyncio", ws="none", lifespan="on",
        log_config=None, access_log=False,
        log_level="error",  # malformed requests are answered, and need not be shown at the terminal
        proxy_headers=False, server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS, timeout_graceful_shutdown=GRACE_SECONDS,
        backlog=BACKLOG,
    )  # fmt: skip
    return uvicorn.Server(config)


def _check_micrographs(project: Project, say: Callable[[str], None]) -> None:
    """Say how many micrographs are missing.

    Raises:
        ProjectError: all of them are.
    """
    missing = [name for name, file in project.files().items() if not file.is_file()]
    if len(missing) == len(project.micrographs):
        project.file_of(project.micrographs[missing[0]])
    if missing:
        say(
            f"{project.micrographs_folder}: {len(missing)} of {len(project.micrographs)} micrographs are not "
            f"there ({missing[0]}, …) and have no picture; put them back"
        )


def _introduce(service: LabelService, forwarded: str, say: Callable[[str], None]) -> None:
    host = socket.getfqdn()
    if host.startswith("localhost"):
        host = socket.gethostname()
    project = service.project
    say(f"{project.config.name}: {len(project.items):,} to label, served on this machine only.")
    say("From another machine, run there first:")
    say(f"  ssh -N -L {forwarded} {_user()}@{host}")
    say("and open there, or here; each link works once:")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "USER"


def _private_socket(stack: contextlib.ExitStack) -> socket.socket:
    """A Unix socket in a folder of mode 0700, which goes with the ``stack``."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cryoquery-"))
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(f"{folder}/socket")
    listening.listen(BACKLOG)
    return listening


def _port_in(file: Path) -> int | None:
    """The port that a file names; None: it names none."""
    try:
        port = int(file.read_bytes()[:10])
    except (OSError, ValueError):
        return None
    return port if 0 < port < 65536 else None


def _listen(port: int | None, last: int | None = None) -> socket.socket:
    """A socket on loopback: at ``port``, or where none was asked for, at the ``last`` one if it is free.

    Raises:
        ProjectError: the port, or each of those that were tried, is in use.
    """
    any_free = [*([last] if last else []), *range(FIRST_PORT, FIRST_PORT + N_PORTS)]
    wanted = any_free if port is None else [port]
    for number in wanted:
        # asyncio sends without delay only where the protocol is stated: 40 ms per answer otherwise.
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((ADDRESS, number))
            # Without it two servers may bind the same port, and only one of them can listen.
            listening.listen(BACKLOG)
        except OSError as error:
            listening.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            reason = "is in use" if error.errno == errno.EADDRINUSE else "is not for ordinary users"
        else:
            return listening
    if port is None:
        raise ProjectError(f"ports {FIRST_PORT} to {wanted[-1]}: all in use; name another one with --port")
    raise ProjectError(f"--port {port}: {reason}; leave it out, and a free one is found")


def _allow_open_files() -> int:
    """How many files may be open: each connection is one, and 1,024 are a common limit that can be raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= OPEN_FILES:
        return OPEN_FILES
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return soft
