"""Names of uploaded files."""

import pytest

from agent.sandbox.exchange import Refusal
from agent.sandbox.uploads import safe_name


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a.jpg", "a.jpg"),
        ("dir/a.jpg", "dir/a.jpg"),
        ("/etc/passwd", "etc/passwd"),
        ("../../a.jpg", "a.jpg"),
        ("a/../../b.jpg", "a/b.jpg"),
        ("..\\..\\a.jpg", "a.jpg"),
        ("C:\\dir\\a.jpg", "C:/dir/a.jpg"),
        ("a\0.jpg", "a.jpg"),
        ("./a.jpg", "a.jpg"),
    ],
)
def test_names_stay_in_their_folder(name, wanted):
    assert safe_name(name) == wanted


@pytest.mark.parametrize("name", ["", "/", "..", "../..", "\0"])
def test_names_that_are_none(name):
    with pytest.raises(Refusal):
        safe_name(name)
