"""A bucket on a server of S3 that runs on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from tests.storage.buckets import Bucket


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, Any]]:
    """Run the server, and return what it takes to reach it: an address, and credentials of nobody."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = {"endpoint_url": f"http://{host}:{port}", "region_name": "eu-west-1"}
    yield {"key": "nobody", "secret": "nothing", "client_kwargs": endpoint}
    server.stop()


names = count()


@pytest.fixture
def bucket(s3: dict[str, Any]) -> Bucket:
    """Return a new bucket."""
    name = f"bucket-{next(names)}"
    fsspec.filesystem("s3", **s3).mkdir(name)
    return Bucket(f"s3://{name}/below", s3)
