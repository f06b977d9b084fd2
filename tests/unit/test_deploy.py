"""The deployment files: they agree with each other, with the program, and with the configuration they bring."""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from agent.cli import COMMANDS
from agent.process.lifetime import LAST_RESORT
from agent.settings.service import load_config

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
UID = 10001


def read(name):
    return (DEPLOY / name).read_text(encoding="utf-8")


def compose(name):
    return yaml.safe_load(read(name))


@pytest.fixture(scope="module")
def sidecar():
    return compose("docker-compose.sidecar.yml")["services"]["cvat-sidecar"]


@pytest.fixture(scope="module")
def cluster():
    """The objects of kubernetes.yaml, by kind and name."""
    found = [document for document in yaml.safe_load_all(read("kubernetes.yaml")) if document]
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


@pytest.fixture(scope="module")
def pod(cluster):
    return cluster["Deployment", "cvat-sidecar"]["spec"]["template"]["spec"]


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """What the program makes of a service.toml of these files, its secrets lying where it may read them."""
    monkeypatch.setenv("SIDECAR_STATUS_PASSWORD", "open sesame")

    def load(text):
        place = tomllib.loads(text)["cvat"]["token_file"]
        (tmp_path / "token").write_text("a token\n")
        file = tmp_path / "service.toml"
        file.write_text(text.replace(place, str(tmp_path / "token")))
        config = load_config(file)
        assert config.server.token == "a token"
        return config, place

    return load


def toml_of(name, cluster):
    return cluster["ConfigMap", "cvat-sidecar"]["data"]["service.toml"] if name == "kubernetes" else read(name)


CONFIGURATIONS = ("service.toml", "service.systemd.toml", "kubernetes")


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_configurations_are_taken_by_the_program(name, cluster, configured):
    config, _ = configured(toml_of(name, cluster))
    assert [model.id for model in config.models] == ["faces"]
    assert config.service.port == 8090
    assert config.service.state_dir == Path("/var/lib/cvat-sidecar")
    if config.gateway is not None:
        assert config.gateway.port == 8070


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_what_is_commented_out_would_be_taken_too(name, cluster, configured):
    text = toml_of(name, cluster)
    more = re.sub(r"^(\s*)# (?=\[|\w+ = )", r"\1", text, flags=re.MULTILINE)
    config, _ = configured(more)
    assert config.gateway is not None


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_doctor_finds_nothing_wrong_in_a_configuration_but_the_server(name, cluster, configured, monkeypatch):
    from agent.doctor.agenda import checks_for
    from agent.doctor.examination import examine
    from agent.doctor.patient import Patient

    config, _ = configured(toml_of(name, cluster))
    wanted = [c for c in checks_for(config) if c.name.startswith(("configuration.", "models."))]
    states = {line.check: line.finding.state for line in examine(wanted, Patient(config))}
    # The token lies where everybody may read it only here.
    states.pop("configuration.permissions")
    assert set(states.values()) <= {"ok", "skipped"}, states


# -------------------------------------------------------------------------- the image


def instructions():
    """(instruction, rest) of the Dockerfile, comments and continued lines taken care of."""
    lines = [line for line in read("Dockerfile").splitlines() if not line.lstrip().startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def of(kind):
    return [rest for name, rest in instructions() if name == kind]


def last_stage():
    found = instructions()
    start = max(at for at, (name, _) in enumerate(found) if name == "FROM")
    return found[start:]


def sources():
    """What the build copies from the repository."""
    found = []
    for rest in of("COPY"):
        words = shlex.split(rest)
        if not any(word.startswith("--from") for word in words):
            found += [word for word in words if not word.startswith("--")][:-1]
    return found


def test_the_instructions_are_known_ones():
    known = {"ARG", "FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK",
             "ENTRYPOINT", "CMD"}  # fmt: skip
    assert {name for name, _ in instructions()} <= known
    assert [rest.split()[0] for rest in of("FROM")] == ["python:${PYTHON}-slim-bookworm"] * 2


def test_everything_that_is_copied_is_there_and_let_through():
    rules = [line for line in read("Dockerfile.dockerignore").splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert set(sources()) == allowed
    for source in sources():
        assert (ROOT / source).exists(), source


def test_a_wheel_is_built_from_what_is_copied_and_no_more(tmp_path):
    """As `pip install --no-deps .` would in the image, but without fetching hatchling."""
    for source in sources():
        target = tmp_path / "src" / source
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, target)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist")]
    done = subprocess.run([*command, str(tmp_path / "src")], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "dist").glob("cvat_sidecar-*.whl"))


def test_dependencies_are_read_from_pyproject(tmp_path):
    """The command of the image, run."""
    from packaging.requirements import Requirement

    (run,) = [rest for rest in of("RUN") if "tomllib" in rest]
    command, _, rest = run.partition("&&")
    done = subprocess.run(
        ["sh", "-c", command.replace("python ", f"{sys.executable} ", 1)], cwd=_with_pyproject(tmp_path),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "requirements.txt").read_text().splitlines()
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert lines == asked
    assert "torch" in {Requirement(line).name for line in lines}
    assert shlex.split(rest)[:2] == ["pip", "install"]
    assert "-c constraints.txt" in rest
    assert '--extra-index-url "$TORCH_INDEX"' in rest


def _with_pyproject(folder):
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_torch_for_the_processor_is_the_default():
    arguments = dict(rest.split("=", 1) for rest in of("ARG") if "=" in rest)
    assert arguments["TORCH_INDEX"] == "https://download.pytorch.org/whl/cpu"
    assert arguments["ONNXRUNTIME"] == "onnxruntime"
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert f">={arguments['PYTHON']}" in required
    pinned = re.search(r"^onnxruntime==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned, "the Dockerfile reads the version for the other build from there"


def test_the_image_runs_as_an_ordinary_user_of_a_fixed_number():
    stage = last_stage()
    users = [rest for name, rest in stage if name == "USER"]
    assert users == [f"{UID}:{UID}"]
    made = " ".join(rest for name, rest in stage if name == "RUN")
    assert f"--uid {UID}" in made
    assert f"--gid {UID}" in made
    order = [name for name, _ in stage]
    assert order.index("USER") > max(at for at, name in enumerate(order) if name in ("RUN", "COPY"))


def test_the_image_has_compiled_modules_and_the_libraries_of_opencv_and_no_secrets():
    text = "\n".join(" ".join(pair) for pair in instructions())
    assert "PYTHONDONTWRITEBYTECODE" not in text
    assert "--no-compile" not in text
    assert "libgl1" in text
    assert "libglib2.0-0" in text
    assert not re.search(r"(?i)(token|password|secret)\w*=", text)
    assert "/var/lib/apt/lists" in text


def test_the_image_starts_the_service_by_way_of_the_entrypoint():
    stage = dict(last_stage())
    assert json.loads(stage["ENTRYPOINT"]) == ["entrypoint.sh"]
    program, command = json.loads(stage["CMD"])
    assert (program, command in COMMANDS) == ("cvat-sidecar", True)
    assert stage["EXPOSE"].split() == ["8070", "8090"]
    assert os.access(DEPLOY / "entrypoint.sh", os.X_OK)


class Health(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self):
        assert self.path == "/healthz"
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.mark.parametrize("status", [200, 503, None])
def test_the_health_check_of_the_image(status, monkeypatch):
    """The command of the image, run against something that is well, ill, or away."""
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    _, command = dict(last_stage())["HEALTHCHECK"].split("CMD", 1)
    python, *rest = json.loads(command)
    assert python == "python"
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Health,), {"status": status}))
    assert "127.0.0.1:8090/healthz" in rest[-1]
    rest[-1] = rest[-1].replace("8090", str(server.server_port))
    if status is None:
        server.server_close()
    else:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    done = subprocess.run([sys.executable, *rest], capture_output=True, timeout=60, check=False)
    if status is not None:
        server.shutdown()
        server.server_close()
    assert (done.returncode == 0) == (status == 200), done.stderr


def entrypoint(tmp_path, **environment):
    script = "import json, os; print(json.dumps(dict(os.environ)))"
    return subprocess.run(
        [str(DEPLOY / "entrypoint.sh"), sys.executable, "-c", script],
        env={"PATH": os.environ["PATH"], "SECRETS_FOLDER": str(tmp_path), **environment},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_entrypoint_reads_secrets_from_files(tmp_path):
    (tmp_path / "word").write_text("a $word with 'all' \"signs\"\n")
    done = entrypoint(tmp_path, WORD_FILE=f"{tmp_path}/word", SSL_CERT_FILE="/etc/ssl/ca.pem", PLAIN="x=1")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["WORD"] == "a $word with 'all' \"signs\""
    assert (told["SSL_CERT_FILE"], told["PLAIN"]) == ("/etc/ssl/ca.pem", "x=1")
    assert "WORD_FILE" not in told
    assert "SSL_CERT" not in told


def test_the_entrypoint_says_which_file_is_missing(tmp_path):
    done = entrypoint(tmp_path, WORD_FILE=f"{tmp_path}/nope")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"WORD_FILE: {tmp_path}/nope cannot be read by user" in done.stderr


# ------------------------------------------------------------------------------ compose


def test_compose_mounts_what_the_configuration_names(sidecar, configured):
    config, token = configured(read("service.toml"))
    top = compose("docker-compose.sidecar.yml")
    secrets = {f"/run/secrets/{name}" for name in sidecar["secrets"]}
    assert set(sidecar["secrets"]) == set(top["secrets"])
    assert token in secrets
    assert sidecar["environment"][f"{config.service.secret_env}_FILE"] in secrets
    mounts = dict(volume.split(":")[1::-1] for volume in sidecar["volumes"])
    assert mounts["/etc/cvat-sidecar/service.toml"] == "./service.toml"
    assert (DEPLOY / "service.toml").exists()
    assert mounts[str(config.service.state_dir)] in top["volumes"]
    environment = " ".join(rest for name, rest in last_stage() if name == "ENV")
    assert "CVAT_SIDECAR_CONFIG=/etc/cvat-sidecar/service.toml" in environment
    assert f"HF_HOME={config.service.state_dir}/" in environment
    assert ("/models" in mounts, dict(last_stage())["WORKDIR"]) == (True, "/models")


def test_compose_joins_cvats_network_where_cvat_looks(sidecar, configured):
    config, _ = configured(read("service.toml"))
    top = compose("docker-compose.sidecar.yml")
    assert sidecar["networks"]["cvat"]["aliases"] == ["nuclio"]
    assert top["networks"]["cvat"] == {"external": True, "name": "${CVAT_NETWORK:-cvat_cvat}"}
    assert (config.gateway.host, config.gateway.port) == ("0.0.0.0", 8070)
    assert config.server.host == "http://cvat-server:8080"
    override = compose("docker-compose.cvat-override.yml")["services"]
    assert override["cvat_server"]["networks"]["cvat"]["aliases"] == ["cvat-server"]


def test_compose_publishes_the_status_page_on_loopback_and_beside_cvats_own_ports(sidecar, configured):
    config, _ = configured(read("service.toml"))
    (port,) = sidecar["ports"]
    address, host, container = port.split(":")
    assert (address, int(container)) == ("127.0.0.1", config.service.port)
    # Traefik, in CVAT's compose file.
    assert int(host) not in (8080, 8090)


def test_compose_takes_rights_away(sidecar):
    assert sidecar["read_only"] is True
    assert sidecar["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in sidecar["security_opt"]
    assert (ROOT / "deploy" / sidecar["build"]["context"] / sidecar["build"]["dockerfile"]).exists()
    assert "privileged" not in sidecar


def test_compose_gives_time_to_stop(sidecar, configured):
    config, _ = configured(read("service.toml"))
    assert float(sidecar["stop_grace_period"].removesuffix("s")) >= config.service.grace_seconds + LAST_RESORT


def test_secrets_and_models_of_a_deployment_stay_out_of_git():
    ignored = read(".gitignore").splitlines()
    for secret in compose("docker-compose.sidecar.yml")["secrets"].values():
        assert any(fnmatch.fnmatch(secret["file"].removeprefix("."), f"{rule}*") for rule in ignored if rule)


def test_both_services_of_cvat_that_call_functions_are_told_the_same():
    services = compose("docker-compose.cvat-override.yml")["services"]
    assert set(services) == {"cvat_server", "cvat_worker_annotation"}
    for service in services.values():
        assert service["environment"] == {"CVAT_SERVERLESS": "1", "CVAT_NUCLIO_INVOKE_METHOD": "dashboard"}


# ------------------------------------------------------------------------------ systemd


def unit():
    """Key -> values of the unit, in order."""
    found = {}
    for line in read("cvat-sidecar.service").splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_the_unit_is_accepted_by_systemd(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    program = unit()["ExecStart"][0].split()[0]
    # The program lies elsewhere here.
    (tmp_path / "cvat-sidecar.service").write_text(read("cvat-sidecar.service").replace(program, sys.executable))
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "cvat-sidecar.service")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", command[-1]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot judge units that are not loaded")
    assert done.returncode == 0, done.stdout[-300:]


def test_the_unit_starts_and_stops_the_service(configured):
    config, token = configured(read("service.systemd.toml"))
    found = unit()
    program, command, option, file = found["ExecStart"][0].split()
    assert (Path(program).name, command in COMMANDS, option) == ("cvat-sidecar", True, "--config")
    assert file == "/etc/cvat-sidecar/service.toml"
    assert found["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert float(found["TimeoutStopSec"][0]) >= config.service.grace_seconds + LAST_RESORT
    assert found["RestartPreventExitStatus"] == ["2"]
    (credential,) = found["LoadCredential"]
    assert token == f"/run/credentials/cvat-sidecar.service/{credential.partition(':')[0]}"
    assert config.service.state_dir == Path("/var/lib") / found["StateDirectory"][0]


# --------------------------------------------------------------------------- kubernetes


def test_the_cluster_runs_what_the_image_has(pod, cluster, configured):
    config, token = configured(toml_of("kubernetes", cluster))
    (container,) = pod["containers"]
    program, command, option, file = container["args"]
    assert (program, command in COMMANDS, option) == ("cvat-sidecar", True, "--config")
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert set(mounts.values()) == set(volumes)
    assert volumes[mounts[str(Path(file).parent)]]["configMap"]["name"] == "cvat-sidecar"
    assert Path(file).name in cluster["ConfigMap", "cvat-sidecar"]["data"]
    secret = volumes[mounts[str(Path(token).parent)]]["secret"]
    assert Path(token).name in {item["path"] for item in secret["items"]}
    claim = volumes[mounts[str(config.service.state_dir)]]["persistentVolumeClaim"]["claimName"]
    assert ("PersistentVolumeClaim", claim) in cluster
    (variable,) = container["env"]
    assert variable["name"] == config.service.secret_env
    assert variable["valueFrom"]["secretKeyRef"]["name"] == secret["secretName"]
    told = (ROOT / "docs" / "deploy.md").read_text()
    for key in (variable["valueFrom"]["secretKeyRef"]["key"], *(item["key"] for item in secret["items"])):
        assert f"--from-literal={key}=" in told


def test_the_clusters_probes_and_services_lead_to_our_ports(pod, cluster, configured):
    from agent.web.app import OPEN

    config, _ = configured(toml_of("kubernetes", cluster))
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"gateway": config.gateway.port, "status": config.service.port}
    paths = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {kind: probe["path"] for kind, probe in paths.items()} == {
        "startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz",
    }  # fmt: skip
    assert all(probe["port"] == "status" and probe["path"] in OPEN for probe in paths.values())
    labels = cluster["Deployment", "cvat-sidecar"]["spec"]["template"]["metadata"]["labels"]
    for name, target in (("nuclio", "gateway"), ("cvat-sidecar", "status")):
        spec = cluster["Service", name]["spec"]
        assert spec["selector"].items() <= labels.items()
        assert spec["ports"] == [{"name": target, "port": ports[target], "targetPort": target}]
        assert spec["publishNotReadyAddresses"] is True, "readiness is all or nothing, and models are many"
    # Kubernetes would set CVAT_NUCLIO_PORT in CVAT's pods.
    assert ("Service", "cvat-nuclio") not in cluster
    assert "cvat-sidecar" in config.service.allowed_hosts


def test_the_cluster_takes_rights_away_and_gives_time_to_stop(pod, cluster, configured):
    config, _ = configured(toml_of("kubernetes", cluster))
    (container,) = pod["containers"]
    inside = container["securityContext"]
    assert (inside["allowPrivilegeEscalation"], inside["readOnlyRootFilesystem"]) == (False, True)
    assert inside["capabilities"] == {"drop": ["ALL"]}
    outside = pod["securityContext"]
    assert outside["runAsNonRoot"] is True
    assert {outside["runAsUser"], outside["runAsGroup"], outside["fsGroup"]} == {UID}
    assert pod["automountServiceAccountToken"] is False
    assert pod["terminationGracePeriodSeconds"] >= config.service.grace_seconds + LAST_RESORT
    deployment = cluster["Deployment", "cvat-sidecar"]["spec"]
    assert (deployment["replicas"], deployment["strategy"]["type"]) == (1, "Recreate")
    limit = container["resources"]["limits"]["memory"]
    assert config.engine.memory_mb < 0.85 * 1024 * float(limit.removesuffix("Gi"))
    policy = cluster["NetworkPolicy", "cvat-sidecar"]["spec"]
    allowed = {rule["ports"][0]["port"]: rule["from"] for rule in policy["ingress"]}
    assert allowed["gateway"] == [{"podSelector": {"matchLabels": {"app": "cvat-app", "tier": "backend"}}}]


# ------------------------------------------------------------------------- the document


def test_the_document_names_files_and_commands_that_exist():
    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    for name in set(re.findall(r"\bdeploy/([\w.-]+\.\w+)", text)):
        assert (DEPLOY / name).exists(), name
    for command in set(re.findall(r"cvat-sidecar (\w+) --", text)):
        assert command in COMMANDS, command
    for path in DEPLOY.iterdir():
        if path.suffix in (".yml", ".yaml", ".service") or path.name == "Dockerfile":
            assert f"deploy/{path.name}" in text or f"({path.name})" in text or path.name in text, path.name
