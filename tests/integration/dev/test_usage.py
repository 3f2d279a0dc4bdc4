import os
import subprocess
import sys

from dev.bench.usage import watched

GROWS = """
import sys
sys.stdin.readline()
kept = b"x" * (64 * 1024 * 1024)
for _ in range(200):
    sum(range(100_000))
print("grown", flush=True)
sys.stdin.readline()
"""


def test_memory_growth_and_cpu_time_of_a_process_are_measured() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", GROWS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with watched({"it": process.pid}) as usage:
            print(file=process.stdin, flush=True)
            assert process.stdout.readline() == "grown\n"
        print(file=process.stdin, flush=True)

    assert usage.grown_mib["it"] > 50
    assert usage.peak_mib["it"] >= usage.largest_mib["it"] >= usage.grown_mib["it"]
    assert usage.cpu_seconds["it"] > 0


def test_a_measured_process_may_end_before_the_measurement() -> None:
    with (
        subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True
        ) as process,
        watched({"it": process.pid, "we": os.getpid()}) as usage,
    ):
        process.communicate("\n")

    assert usage.peak_mib["we"] > 0
