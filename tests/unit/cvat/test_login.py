"""Where the server is and who we are: what cvat-cli accepts, and clear words for what makes no sense."""

import http.server
import ssl
import subprocess
import threading
import warnings
from pathlib import Path

import pytest
from cvat_sdk.core.auth import AuthStore, ProfileEntry

from agent.cvat.session import Session
from agent.errors import ConfigError, ServerUnavailable
from agent.settings.server import ServerSettings


def url(**settings):
    with Session(ServerSettings(**{"token": "t", **settings})) as session:
        return session.url


@pytest.mark.parametrize(
    ("host", "port", "address"),
    [
        ("cvat.example.com", None, "https://cvat.example.com"),
        ("cvat.example.com", 8443, "https://cvat.example.com:8443"),
        ("cvat.example.com:8443", None, "https://cvat.example.com:8443"),
        ("http://localhost:8080/", None, "http://localhost:8080"),
        ("http://localhost", 8080, "http://localhost:8080"),
        ("https://[::1]:8443", None, "https://[::1]:8443"),
        ("http://[::1]", 8080, "http://[::1]:8080"),
        (None, None, "http://localhost"),
        (None, 8080, "http://localhost:8080"),
    ],
)
def test_addresses(host, port, address):
    assert url(host=host, port=port) == address


@pytest.mark.parametrize(
    "settings",
    [
        {"host": "http://localhost:8080", "port": 8081},
        {"host": "localhost:8080", "port": 8081},
        {"host": "ftp://localhost"},
        {"host": "http://bot:secret@localhost"},
        {"host": "http://"},
        {"host": "http://localhost:port"},
        {"host": "localhost", "profile": "mine"},
        {"profile": "none of that name", "token": None},
        {"ca_file": Path("/nowhere/ca.pem")},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_said_before_any_request(settings):
    with pytest.raises(ConfigError) as caught:
        url(**settings)
    assert "secret" not in str(caught.value)


def test_nobody_to_log_in():
    with Session(ServerSettings(host="http://localhost")) as session, pytest.raises(ConfigError, match="--auth"):
        session.request("GET", "/api/tasks")


@pytest.fixture
def store():
    made = AuthStore()
    made.put_profile("first", ProfileEntry("https://one.example.com", "token-one", ""))
    made.put_profile("second", ProfileEntry("https://two.example.com", "token-two", ""))
    return made


def test_profiles(store):
    nobody = {"token": None}
    assert url(profile="second", **nobody) == "https://two.example.com"
    assert url(**nobody) == "https://one.example.com", "the default profile, where nothing else is said"
    assert url(host="https://three.example.com") == "https://three.example.com"
    assert url(token="mine") == "http://localhost", "a token of one's own does not go to the profile's server"
    store.set_default_server("https://four.example.com")
    assert url(token="mine") == "https://four.example.com"


def test_a_damaged_store_of_profiles(store):
    store.path.write_text("{")
    with pytest.raises(ConfigError, match="profile"):
        url(token=None)


@pytest.fixture
def tls(tmp_path):
    """(url, certificate) of a TLS server that answers each call with an empty list."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the openssl command")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *args): ...

    class Quiet(http.server.ThreadingHTTPServer):
        def handle_error(self, *args): ...  # clients that refuse the certificate

    server = Quiet(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_address[1]}", certificate
    server.shutdown()
    server.server_close()


def ask(waits, **settings):
    with Session(ServerSettings(token="t", **settings), sleep=waits.append) as session:
        return session.request("GET", "/api/tasks").json()


def test_a_certificate_that_is_not_trusted_is_no_reason_to_try_again(tls):
    waits = []
    with pytest.raises(ServerUnavailable, match="--ca-file") as caught:
        ask(waits, host=tls[0])
    assert waits == []
    assert not caught.value.maybe_done


def test_a_certificate_of_ones_own(tls):
    assert ask([], host=tls[0], ca_file=tls[1]) == []


def test_no_check_of_the_certificate_is_told_once(tls, caplog):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert ask([], host=tls[0], verify_ssl=False) == []
    assert caught == []
    assert caplog.text.count("is not checked") == 1


def test_tls_where_there_is_none(tls):
    """A bare host means https; the sandbox and many servers at home speak http only."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    server.RequestHandlerClass.log_message = lambda *args: None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    waits = []
    try:
        with pytest.raises(ServerUnavailable, match="http:// rather than https://"):
            ask(waits, host=f"127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        server.server_close()
    assert waits == []
