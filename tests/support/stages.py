"""Stages on which an operation can be disturbed: banks in memory behind :mod:`support.object_server`, and banks in folders."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from support import folder_trouble
from support.object_server import ObjectServer, Request, Trouble, World

__all__ = ["FolderStage", "S3Stage", "Scene", "Stage"]


class Scene(Protocol):
    """One bank on a stage."""

    def place(self, trouble: Trouble | None = None) -> dict[str, Any]:
        """Return where the bank is, for a run with some trouble from now on, or none."""
        ...

    def objects(self) -> dict[str, bytes]:
        """Return what the bank holds."""
        ...

    def log(self) -> list[Request]:
        """Return all requests so far."""
        ...

    def leave(self) -> None:
        """Remove the bank and all local copies of it."""
        ...


class Stage(Protocol):
    """A maker of banks that hold some objects. ``kinds`` are the disturbances that it knows."""

    kinds: tuple[str, ...]

    def scene(self, objects: Mapping[str, bytes]) -> Scene: ...


@dataclass(frozen=True)
class _S3Scene:
    server: ObjectServer
    bucket: str
    cache: Path
    world: World

    def place(self, trouble: Trouble | None = None) -> dict[str, Any]:
        self.world.begin(trouble or Trouble())
        return {"url": f"s3://{self.bucket}", "endpoint": self.server.endpoint, "cache": str(self.cache)}

    def objects(self) -> dict[str, bytes]:
        return dict(self.world.objects)

    def log(self) -> list[Request]:
        return list(self.world.log)

    def leave(self) -> None:
        self.server.worlds.pop(self.bucket, None)
        shutil.rmtree(self.cache, ignore_errors=True)


class S3Stage:
    """Banks in memory, reached by S3."""

    kinds = ("kill", "lost", "full", "read-only")

    def __init__(self, server: ObjectServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        self._n = 0

    def scene(self, objects: Mapping[str, bytes]) -> Scene:
        self._n += 1
        bucket = f"scene-{self._n}"
        return _S3Scene(self.server, bucket, self.folder / bucket, self.server.world(bucket, objects))


@dataclass(frozen=True)
class _FolderScene:
    folder: Path

    def place(self, trouble: Trouble | None = None) -> dict[str, Any]:
        place: dict[str, Any] = {"url": str(self.folder), "cache": str(self.folder.with_name("cache"))}
        return place if trouble is None else {**place, "trouble": [trouble.kind, trouble.at]}

    def objects(self) -> dict[str, bytes]:
        """Return the files but those half written, which no store lists."""
        files = (p for p in self.folder.rglob("*") if p.is_file() and "#" not in p.name)
        return {p.relative_to(self.folder).as_posix(): p.read_bytes() for p in files}

    def log(self) -> list[Request]:
        found = []
        path = folder_trouble.log_of(self.folder)
        for line in path.read_text().splitlines() if path.exists() else []:
            method, status, key = line.split(" ", 2)
            is_done = method in ("PUT", "DELETE") and status == "200"
            found.append(Request(method, key, int(status), done=is_done))
        return found

    def leave(self) -> None:
        shutil.rmtree(self.folder.parent)


class FolderStage:
    """Banks in folders."""

    kinds = folder_trouble.KINDS

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._n = 0

    def scene(self, objects: Mapping[str, bytes]) -> Scene:
        self._n += 1
        bank = self.folder / f"scene-{self._n}" / "bank"
        bank.mkdir(parents=True)
        for key, data in objects.items():
            path = bank / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return _FolderScene(bank)
