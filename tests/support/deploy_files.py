"""The files below ``deploy``, and the tool that each is valid by."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import crossplane
import kubernetes_validate
from ruamel.yaml import YAML

from support.programs import program, require_programs
from tensorbank_server.settings import load_settings

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
BIN = Path(sys.executable).parent
KUBERNETES = "1.37"
"""The version of Kubernetes whose schemas the manifests are checked by, strictly: an unknown field is an error."""

MAX_EXPOSURE = 25
"""The most tenths of points that `systemd-analyze security` may count against a unit; 100 is one without any fence."""


class NotValidError(Exception):
    """A file is not what its tool takes."""


def ran(*command: object) -> str:
    """Run a tool; return what it printed."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise NotValidError(done.stdout + done.stderr)
    return done.stdout


def tool(packages: str, name: str) -> str:
    """Return the path of a program of the system."""
    require_programs(packages, name)
    return program(name)


def documents(text: str) -> list[dict]:
    """Return the documents of a YAML text."""
    return [d for d in YAML(typ="safe").load_all(text) if d is not None]


def built(folder: Path) -> list[dict]:
    """Return the resources that kustomize builds of a folder."""
    return documents(ran(BIN / "kubectl", "kustomize", folder))


def check_resources(resources: list[dict]) -> None:
    """Check resources of Kubernetes by the schemas of its API."""
    for resource in resources:
        try:
            kubernetes_validate.validate(resource, KUBERNETES, strict=True)
        except (
            kubernetes_validate.ValidationError,
            kubernetes_validate.InvalidSchemaError,
            kubernetes_validate.SchemaNotFoundError,
        ) as error:
            raise NotValidError(str(error)) from error


def compose(path: Path) -> None:
    ran(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", path)


def hadolint(path: Path) -> None:
    ran(BIN / "hadolint", path)


def shell(path: Path) -> None:
    ran(BIN / "shellcheck", "--shell=bash", path)
    if not os.access(path, os.X_OK):
        raise NotValidError(f"{path} is not executable")


def python(path: Path) -> None:
    compile(path.read_text(), str(path), "exec")
    ran(BIN / "ruff", "check", "--no-cache", path)


def nginx(path: Path) -> None:
    parsed = crossplane.parse(str(path), strict=True, catch_errors=True)
    if parsed["status"] != "ok":
        raise NotValidError(str(parsed["errors"]))


def settings(path: Path) -> None:
    try:
        load_settings(path)
    except ValueError as error:
        raise NotValidError(str(error)) from error


def manifest(path: Path) -> None:
    check_resources(documents(path.read_text()))


def kustomization(path: Path) -> None:
    """Build it, and check all that comes out; a file that is named nowhere is seen by nobody."""
    check_resources(built(path.parent))


def env(path: Path) -> None:
    for line in filter(lambda line: not line.startswith("#"), path.read_text().splitlines()):
        name, sign, _ = line.partition("=")
        if not (sign and name.isidentifier() and name.isupper()):
            raise NotValidError(f"{line!r} is no NAME=value")


def ignore_list(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    if lines[0] != "*":
        raise NotValidError("nothing is left out")


def unit(path: Path) -> None:
    """Check a unit beside the others of its folder, as they are installed: the programs that they name are there."""
    analyze = tool("systemd", "systemd-analyze")
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder)
        for found in path.parent.glob("tensorbank-*"):
            text = found.read_text()
            for named in re.findall(r"^Exec\w+=(/opt/tensorbank\S+)", text, re.MULTILINE):
                there = prefix / Path(named).relative_to("/opt/tensorbank")
                there.parent.mkdir(parents=True, exist_ok=True)
                there.touch(mode=0o755)
            (prefix / found.name).write_text(text.replace("/opt/tensorbank", folder))
        done = subprocess.run(
            [analyze, "verify", "--man=no", prefix / path.name], capture_output=True, text=True, timeout=120
        )
        told = [line for line in done.stderr.splitlines() if folder in line]
        if done.returncode != 0 or told:
            raise NotValidError(done.stderr)
        if path.suffix == ".service":
            done = subprocess.run(
                [analyze, "security", "--offline=true", f"--threshold={MAX_EXPOSURE}", prefix / path.name],
                capture_output=True,
                text=True,
                timeout=120,
            )
            if done.returncode != 0:
                raise NotValidError(done.stdout[-500:] + done.stderr)


def promtool(*words: object) -> str:
    return ran(tool("prometheus", "promtool"), *words)


def prometheus_config(path: Path) -> None:
    promtool("check", "config", path)


def rules(path: Path) -> None:
    promtool("check", "rules", path)


def rule_tests(path: Path) -> None:
    promtool("test", "rules", path)


def dashboard(path: Path) -> None:
    """Check that the panels have what Grafana needs, and that Prometheus can parse their queries."""
    try:
        panels = json.loads(path.read_text())["panels"]
        queries = [target["expr"] for panel in panels for target in panel["targets"]]
        ids = {(p["id"], p["title"], p["type"], p["datasource"]["uid"], str(p["gridPos"])) for p in panels}
    except (ValueError, KeyError, TypeError) as error:
        raise NotValidError(f"{path}: {error!r}") from error
    if not queries or len(ids) != len(panels):
        raise NotValidError(f"{path} has no queries, or a panel twice")
    asked = [
        {"record": f"asked:{n}", "expr": q.replace("$__rate_interval", "5m")} for n, q in enumerate(queries)
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:  # JSON is YAML
        json.dump({"groups": [{"name": "asked", "rules": asked}]}, file)
        file.flush()
        rules(Path(file.name))


def guide(path: Path) -> None:
    """Check nothing: links, words and blocks of guides are checked by the tests of documentation."""
    path.read_text()


def by_make_docs(path: Path) -> None:
    """Check nothing: `make docs` builds a site of it, and its warnings are errors."""
    path.read_text()


VALIDATORS: dict[str, Callable[[Path], None]] = {
    r"Dockerfile": hadolint,
    r"Dockerfile\.dockerignore": ignore_list,
    r"compose\.yaml": compose,
    r"nginx\.conf": nginx,
    r"(.*/)?server\.toml": settings,
    r"kubernetes/.*/kustomization\.yaml": kustomization,
    r"kubernetes/.*\.yaml": manifest,
    r"kubernetes/.*\.env": env,
    r"prometheus/prometheus\.yaml": prometheus_config,
    r"prometheus/rules\.yaml": rules,
    r"prometheus/rules_test\.yaml": rule_tests,
    r"grafana/.*\.json": dashboard,
    r"systemd/.*\.(service|timer)": unit,
    r"systemd/.*\.env": env,
    r"systemd/install\.sh": shell,
    r"slurm/[^/]*\.(sbatch|sh)": shell,
    r".*\.py": python,
    r"docs/.*": by_make_docs,
    r"[A-Z]+\.md": guide,
}
"""Validators by the path below ``deploy``, as regular expressions; the first that fits counts."""


def validator_of(path: str) -> Callable[[Path], None] | None:
    """Return the validator of a path below ``deploy``, None if nobody knows it."""
    return next((v for pattern, v in VALIDATORS.items() if re.fullmatch(pattern, path)), None)


def files() -> list[str]:
    """Return the paths below ``deploy``, without what is made there: secrets, and what Python leaves."""
    made = ("secrets", "__pycache__")
    paths = (p.relative_to(DEPLOY) for p in sorted(DEPLOY.rglob("*")) if p.is_file())
    return [p.as_posix() for p in paths if not set(made) & set(p.parts)]
