import pytest

from agent.errors import ConfigError
from agent.options import Options, Target, parse_mapping, parse_roi


def test_options_survive_the_ledger():
    options = Options.of(model="local:x.onnx", mapping=("car=vehicle", "cat="), roi="1,2,30,40", params={"a": 1})
    assert Options.from_json(options.as_json()) == options
    assert options.mapping == {"car": "vehicle", "cat": None}
    assert (options.region.left, options.region.bottom) == (1, 40)


@pytest.mark.parametrize("pairs", [("car",), ("=x",), ("a=b", "a=c")])
def test_bad_mappings_are_refused(pairs):
    with pytest.raises(ConfigError, match="--map"):
        parse_mapping(pairs)


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "5,0,5,9", "-1,0,5,9", ""])
def test_bad_rois_are_refused(text):
    with pytest.raises(ConfigError, match="--roi"):
        parse_roi(text)


@pytest.mark.parametrize("ids", [{"task": None, "job": None}, {"task": 1, "job": 2}])
def test_there_is_one_target(ids):
    with pytest.raises(ConfigError, match="allowed: one of --task"):
        Target.of(**ids)


def test_target_reads_what_it_wrote():
    assert Target.parse(str(Target("job", 7))) == Target("job", 7)


def test_a_date_among_the_models_options_stays_text():
    from agent.commands.options import model_params

    assert model_params(("a=2026-01-01", "b=[1, 2]", "c=true")) == {"a": "2026-01-01", "b": [1, 2], "c": True}
