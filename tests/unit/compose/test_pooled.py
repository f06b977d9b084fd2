"""Models built of others in a pool: parts are shared, and stay as long as what is built of them."""

import pytest

from agent.contract import Context
from agent.errors import ConfigError
from agent.pool.pool import ModelPool
from agent.settings.service import load_config
from agent.settings.tables import EngineSettings, ModelSettings

FACES = ModelSettings("faces", "opencv:face")
MIRRORED = ModelSettings("mirrored", "flips:", options={"of": "faces"})


def status(pool):
    return {record.id: (record.status, record.users) for record in pool.records()}


@pytest.fixture
def pool(tmp_path):
    clock = [0.0]
    pool = ModelPool([FACES, MIRRORED], EngineSettings(idle_minutes=1), tmp_path, clock=lambda: clock[0])
    pool.clock_of_test = clock
    yield pool
    pool.close()


def test_a_part_is_loaded_once_and_lent_to_the_whole(pool):
    with pool.use("mirrored") as mirrored, pool.use("faces") as faces:
        assert mirrored.loaded.facts["parts"] == "faces"
        assert mirrored.loaded.labels == faces.loaded.labels
        assert status(pool) == {"faces": ("ready", 2), "mirrored": ("ready", 1)}
        assert mirrored.host.submit([], Context()).result(10) == []


def test_a_part_stays_until_the_whole_is_unloaded(pool):
    with pool.use("mirrored"):
        pass
    assert status(pool) == {"faces": ("ready", 1), "mirrored": ("ready", 0)}
    pool.clock_of_test[0] = 61.0
    pool.sweep()  # the whole goes, and gives its part back
    assert status(pool)["mirrored"] == ("unloaded", 0)
    pool.clock_of_test[0] = 200.0
    pool.sweep()
    assert status(pool) == {"faces": ("unloaded", 0), "mirrored": ("unloaded", 0)}


def test_a_whole_whose_part_has_other_settings_is_built_anew(pool):
    with pool.use("mirrored") as before:
        pass
    pool.replace([ModelSettings("faces", "opencv:face", batch_size=3), MIRRORED], EngineSettings(idle_minutes=1))
    assert status(pool)["mirrored"] == ("unloaded", 0)
    with pool.use("mirrored") as after:
        assert after.loaded is not before.loaded


def test_options_of_a_shared_part_belong_to_its_own_table(tmp_path):
    settings = ModelSettings("b", "flips:", options={"of": {"model": "faces", "options": {"x": 1}}})
    pool = ModelPool([FACES, settings], EngineSettings(), tmp_path)
    with pytest.raises(ConfigError, match=r"model 'faces': its options belong into its own table"), pool.use("b"):
        pass
    pool.close()


def test_service_toml_refuses_models_that_are_parts_of_themselves(tmp_path):
    file = tmp_path / "service.toml"
    file.write_text(
        """
        [[models]]
        id = "a"
        model = "chain:"
        options = { of = "x", then = [{ model = "b", gives = "label" }] }
        [[models]]
        id = "b"
        model = "ensemble:"
        options = { of = ["local:y.onnx", { model = "a" }] }
        [[models]]
        id = "x"
        model = "local:x.onnx"
        """
    )
    with pytest.raises(ConfigError, match=r"models 'a': it is a part of itself: a -> b -> a"):
        load_config(file)
