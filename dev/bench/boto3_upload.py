"""The peer of the transfer benchmark: boto3's `upload_file` with its defaults.

    python -m dev.bench.boto3_upload FILE BUCKET KEY

Address and credentials come from boto3's own variables. The printed time excludes the start
of Python and the import of boto3, which a worker pays once.
"""

import sys
import time

import msgspec
from boto3.session import Session


class Timing(msgspec.Struct, frozen=True):
    seconds: float
    cpu_seconds: float


def main() -> None:
    file, bucket, key = sys.argv[1:]
    client = Session().client("s3")
    began, cpu_began = time.perf_counter(), time.process_time()
    client.upload_file(file, bucket, key)
    timing = Timing(
        seconds=time.perf_counter() - began, cpu_seconds=time.process_time() - cpu_began
    )
    print(msgspec.json.encode(timing).decode())


if __name__ == "__main__":
    main()
