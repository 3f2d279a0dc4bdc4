from dev.bench.servers import choose

CALM = {"uvicorn": 0.0, "granian": 1.0, "hypercorn": 1.0}
SMALL = {"uvicorn": 100.0, "granian": 110.0, "hypercorn": 120.0}


def test_a_slightly_faster_server_is_not_chosen() -> None:
    assert choose({"granian": [1.05, 1.09, 1.2]}, peak_mib=SMALL, grown_mib=CALM) == "uvicorn"


def test_the_fastest_acceptable_server_is_chosen() -> None:
    speedups = {"granian": [1.2, 1.3, 0.9], "hypercorn": [1.4, 1.5, 1.3]}

    assert choose(speedups, peak_mib=SMALL, grown_mib=CALM) == "hypercorn"


def test_a_server_that_keeps_bodies_in_memory_is_not_chosen() -> None:
    speedups = {"granian": [2.0], "hypercorn": [1.2]}

    assert choose(speedups, peak_mib=SMALL, grown_mib=CALM | {"granian": 256.0}) == "hypercorn"


def test_a_faster_server_with_more_memory_is_not_chosen() -> None:
    speedups = {"granian": [1.3], "hypercorn": [1.2]}
    large = SMALL | {"granian": 200.0}

    assert choose(speedups, peak_mib=large, grown_mib=CALM) == "hypercorn"
