from miyagi.sweep import table


def test_a_header_for_whoever_is_not_tuned():
    assert table.text([], []) == (
        "number,state,reason,epochs,metric,value,fresh,fresh_low,fresh_high,vs_defaults,vs_low,vs_high,winner,reproducible\n"
    )


def test_cells():
    row = {
        "number": 0, "state": "complete", "reason": None, "epochs": 2, "metric": "knn", "value": 61.5, "winner": True,
        "space.loss": "nce", "space.augment.blur": {"p": 0.5}, "space.number": None, "reproducible": False,
    }  # fmt: skip
    header, line = table.text([row], ["loss", "augment.blur", "number", "head.width"], seconds=True).splitlines()
    assert header.split(",")[5:11] == [
        "value", "seconds", "space.loss", "space.augment.blur", "space.number", "space.head.width",
    ]  # fmt: skip
    assert line == '0,complete,,2,knn,61.5,,"""nce""","{""p"":0.5}",null,,,,,,,,yes,no'
