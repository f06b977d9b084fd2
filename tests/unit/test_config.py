import pytest

from agent.errors import ConfigError
from agent.settings.server import ServerSettings, load_server


def write(folder, text):
    path = folder / "service.toml"
    path.write_text(text)
    return path


def test_flags_win_over_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "s3cret")
    path = write(tmp_path, '[cvat]\nhost = "https://cvat.example"\ntoken_env = "MY_TOKEN"\ntimeout = 5\n')
    settings = load_server(path, timeout=9.0, organization="lab")
    assert (settings.host, settings.token, settings.timeout, settings.organization) == (
        "https://cvat.example", "s3cret", 9.0, "lab",
    )  # fmt: skip


def test_secrets_are_not_shown():
    assert "s3cret" not in repr(ServerSettings(password="s3cret", token="s3cret"))


def test_a_password_replaces_the_token_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "s3cret")
    path = write(tmp_path, '[cvat]\ntoken_env = "MY_TOKEN"\n')
    settings = load_server(path, user="bot", password="pw")
    assert (settings.token, settings.user, settings.password) == (None, "bot", "pw")


def test_the_token_of_the_environment_is_used_where_nothing_else_is_said(monkeypatch):
    monkeypatch.setenv("CVAT_ACCESS_TOKEN", "t")
    assert load_server().token == "t"
    assert load_server(user="bot", password="pw").token is None
    assert load_server(profile="work").token is None


def test_a_secret_comes_from_a_file_beside_the_configuration(tmp_path):
    (tmp_path / "password").write_text("pw\n")
    path = write(tmp_path, '[cvat]\nuser = "bot"\npassword_file = "password"\nca_file = "ca.pem"\n')
    settings = load_server(path)
    assert settings.password == "pw"
    assert settings.ca_file == tmp_path / "ca.pem"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[cvat]\ntoken_evn = 'X'", "unknown key 'token_evn'; did you mean 'token_env'?"),
        ("[cvat]\ntoken = 'X'", "unknown key 'token'"),
        ("[cvatt]", "unknown table [cvatt]; did you mean 'cvat'?"),
        ("[cvat]\ntimeout = 'long'", "timeout: got 'long', allowed: a number"),
        ("[cvat]\nport = true", "port: got True, allowed: a whole number"),
        ("[cvat]\ntoken_env = 'NOT_THERE'", "the environment has no variable NOT_THERE"),
        ("[cvat]\ntoken_file = 'gone'", "cannot read gone"),
        ("[cvat", "cannot be read"),
        ("cvat = 5", "cvat: got 5, allowed: a table [cvat]"),
        ("[cvat]\nretries = false", "retries: got False, allowed: a whole number"),
        ("[cvat]\nverify_ssl = 0", "verify_ssl: got 0, allowed: true or false"),
        ("[cvat]\nport = 70000", "port: got 70000, allowed: 1 to 65535"),
        ("[cvat]\ntimeout = nan", "timeout: got nan, allowed: 0.1 to"),
        ("[cvat]\nretries = -1", "retries: got -1, allowed: 0 to"),
        ("[cvat]\nuser = 'a'\ntoken_env = 'HOME'", "got user and token_env, allowed: one of them"),
    ],
)
def test_mistakes_are_named(tmp_path, text, said):
    with pytest.raises(ConfigError) as caught:
        load_server(write(tmp_path, text))
    assert said in str(caught.value)


def test_a_profile_stands_alone():
    with pytest.raises(ConfigError, match="--profile"):
        load_server(profile="work", host="http://x")


def test_a_port_takes_the_place_of_the_files_profile(tmp_path):
    settings = load_server(write(tmp_path, '[cvat]\nprofile = "work"\n'), port=8080)
    assert (settings.profile, settings.port) == (None, 8080)


def test_a_run_is_looked_for_where_it_went():
    assert ServerSettings(token="t").for_run_at("http://x:8080").host == "http://x:8080"
    assert ServerSettings(token="t", host="http://y").for_run_at("http://x").host == "http://y"
    assert ServerSettings(profile="work").for_run_at("http://x").host is None
    assert ServerSettings().for_run_at("http://x").host is None, "cvat-cli's default profile names its own server"
