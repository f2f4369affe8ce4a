from miyagi.errors import did_you_mean


def test_the_nearest_name():
    assert did_you_mean("simcrl", ["moco", "simclr"]) == "did you mean 'simclr'?"


def test_all_names_where_none_is_near():
    assert did_you_mean("xyz", ["moco", "byol"]) == "known: byol, moco"
    assert did_you_mean("xyz", []) == "known: none"
