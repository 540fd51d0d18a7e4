"""What a command would find out only after seconds of imports, found out before them: paths, keys, a busy port."""

import os
from collections.abc import Iterable
from pathlib import Path

from commonweight.catalog.header import check_header
from commonweight.catalog.resolve import resolve_local
from commonweight.runtime.data import DataFolder
from commonweight.runtime.errors import UserError
from commonweight.runtime.findings import check_data_folder, check_folder, require
from commonweight.runtime.network import bind_listener, check_key, check_origins, is_loopback, load_tls
from commonweight.runtime.settings import AssistantSettings, GuardSettings, ServerSettings


def check_readable(paths: Iterable[Path | None]) -> None:
    """Check that files, and folders, can be read.

    Raises:
        OSError: one cannot.
    """
    for path in filter(None, paths):
        if path.is_dir():
            os.scandir(path).close()
        else:
            path.open("rb").close()


def check_output(path: Path) -> None:
    """Check that a file can be written, which is left as it is.

    Raises:
        UserError: its folder is missing, or takes nothing; or it is a folder itself.
    """
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder; name a file in it")
    found = check_folder(str(path), path.parent, "choose another file")
    if found.status == "fail" or not path.parent.is_dir():
        raise UserError(f"cannot write {path}: {path.parent} is no folder that can be written to")


def check_assistant(settings: AssistantSettings) -> None:
    """Check the files that an assistant is made of, as far as they are here.

    Raises:
        UserError, ModelNotFoundError, OSError: one is missing or is not what it should be.
    """
    if settings.model is not None and (path := resolve_local(settings.model)):
        check_header(path)
    if settings.guard is not None:
        _check_guard(settings.guard)


def check_server(server: ServerSettings, data: DataFolder) -> None:
    """Check what a server is to listen on, and where it keeps its data.

    Raises:
        UserError: it cannot be used.
    """
    check_key(server.api_key)
    check_origins(server.cors_origins)
    load_tls(server.tls_cert, server.tls_key)
    if (folder := check_data_folder(data)).status == "fail":
        require(folder)
    # Of a server for other machines one wants to hear first that it needs a key, which takes the database.
    if is_loopback(server.host) or server.api_key:
        bind_listener(server.host, server.port).close()


def _check_guard(settings: GuardSettings) -> None:
    if settings.mode == "off":
        return
    check_readable([settings.bundle])
    if settings.charter is not None:
        from commonweight.runtime.charter import read_charter

        read_charter(settings.charter)
