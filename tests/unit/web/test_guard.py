import base64

import pytest

from agent.web.guard import Guard


def basic(text):
    return {"authorization": "Basic " + base64.b64encode(text.encode()).decode()}


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8090", "LOCALHOST", "127.0.0.1:8090", "[::1]:8090", "10.1.2.3", "sidecar.test:8090",
     "Sidecar.Test", "sidecar.test.", "page.localhost:1", "[fe80::1]"],
)  # fmt: skip
def test_names_that_lead_here(host):
    assert Guard(None, ["sidecar.test"]).knows_host(host)


@pytest.mark.parametrize(
    "host",
    ["", "evil.test", "evil.test:8090", "localhost.evil.test", "sidecar.test.evil.test", "127.0.0.1.evil.test",
     "evil.test@localhost", "localhost:port", "localhost:99999", "a b", "[::1", "localhost/x", "xlocalhost",
     "localhost#",
     "2130706433x", "localhost?x"],
)  # fmt: skip
def test_names_that_somebody_else_may_have_pointed_here(host):
    assert not Guard(None, ["sidecar.test"]).knows_host(host)


def test_without_a_password_everybody_is_let_in():
    assert Guard(None).admits({})


@pytest.mark.parametrize(
    "headers",
    [basic("anybody:pass wörd"), basic(":pass wörd"), {"authorization": "bearer pass wörd"},
     {"authorization": "Bearer  pass wörd "}],
)  # fmt: skip
def test_with_one_it_has_to_be_shown(headers):
    assert Guard("pass wörd").admits(headers)


@pytest.mark.parametrize(
    "headers",
    [{}, basic("anybody:wrong"), basic("pass wörd"), basic("a:pass wörd:b"), {"authorization": "Basic !!!"},
     {"authorization": "Basic é"},
     {"authorization": "Basic"}, {"authorization": "Basic /w=="}, {"authorization": "Digest pass wörd"},
     {"authorization": "Bearer"}, {"authorization": "Bearer wrong"}, {"authorization": "pass wörd"}],
)  # fmt: skip
def test_anything_else_is_refused(headers):
    assert not Guard("pass wörd").admits(headers)


class TestChanging:
    def refuses(self, token=None, **headers):
        guard = Guard(None)
        headers = {"host": "localhost:8090", **{name.replace("_", "-"): value for name, value in headers.items()}}
        return guard.refuses(headers, guard.token if token is None else token)

    def test_our_own_forms_are_taken(self):
        assert self.refuses() is None
        assert self.refuses(origin="http://localhost:8090", sec_fetch_site="same-origin") is None
        assert self.refuses(origin="https://LOCALHOST:8090") is None, "behind a proxy that speaks TLS"

    @pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
    def test_other_sites_are_not(self, site):
        assert "another site" in self.refuses(sec_fetch_site=site)

    @pytest.mark.parametrize(
        "origin",
        ["http://evil.test", "null", "http://localhost", "http://localhost:8091", "http://localhost:8090.evil"],
    )
    def test_other_origins_are_not(self, origin):
        assert "another origin" in self.refuses(origin=origin)

    @pytest.mark.parametrize("token", ["", "wrong", "ä"])
    def test_nor_is_anything_without_the_token(self, token):
        assert "token" in self.refuses(token=token)

    def test_tokens_are_of_one_process(self):
        assert Guard(None).token != Guard(None).token
        assert len(Guard(None).token) > 40
