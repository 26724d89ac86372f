"""Web pages in this machine's browser are refused; programs are not."""

from __future__ import annotations

import pytest
import urllib3

from local.strangers import foreign_header


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"host", b"127.0.0.1:4566")],
        [(b"host", b"localhost")],
        [(b"Host", b"bucket.localhost:4566")],
        [(b"host", b"[::1]:4566"), (b"origin", b"http://localhost:3000")],
    ],
)
def test_programs_of_this_machine(headers: list[tuple[bytes, bytes]]) -> None:
    assert foreign_header(headers) is None


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        ([(b"host", b"rebound.example:4566")], "Host: rebound.example:4566"),
        ([(b"host", b"127.0.0.1.example")], "Host: 127.0.0.1.example"),
        ([(b"host", b"notlocalhost")], "Host: notlocalhost"),
        ([(b"host", b"10.0.0.1")], "Host: 10.0.0.1"),
        ([(b"host", b"")], "Host: "),
        ([(b"host", b"127.0.0.1"), (b"Origin", b"https://site.example")], "Origin: https://site.example"),
        ([(b"origin", b"null")], "Origin: null"),
    ],
)
def test_web_sites(headers: list[tuple[bytes, bytes]], shown: str) -> None:
    assert foreign_header(headers) == shown


@pytest.mark.parametrize("header", [("Host", "rebound.example"), ("Origin", "http://site.example")])
def test_a_page_gets_nothing_even_with_a_good_signature(cloud, header: tuple[str, str]) -> None:
    url = cloud.client("medical-imaging").generate_presigned_url("list_datastores")
    assert urllib3.request("GET", url).status == 200
    refused = urllib3.request("GET", url, headers=dict([header]))
    assert refused.status == 403
    assert b"answers programs on this machine only" in refused.data
