"""The mistakes that people make, and what is sent to break things: each gets a plain sentence."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
import pytest_asyncio
from wire_service import TOKEN, WireService, wire_service

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WireService]:
    async with wire_service(tmp_path_factory.mktemp("service"), licenses={"hfss": 2}) as running:
        yield running


MISTAKES: list[tuple[Any, int, str]] = [
    ({"comand": ["x"]}, 400, "unknown field 'comand'; did you mean 'command'?"),
    ({}, 400, "give either 'command' (a list) or 'script' (shell text)"),
    ({"command": "pw.x -in si.in"}, 400, "must be a list"),
    ({"command": ["x"], "memory": "lots"}, 400, "'lots' is not an amount of memory or disk"),
    ({"command": ["x"], "memory": True}, 400, "memory: "),
    ({"command": ["x"], "walltime": "soon"}, 400, "'soon' is not a length of time"),
    ({"command": ["x"], "cores": 0}, 400, "cores: should be greater than or equal to 1"),
    ({"command": ["x"], "cores": 1_000_000_000}, 400, "cores: should be less than or equal to"),
    ({"command": ["x"], "cores": "many"}, 400, "cores: should be a valid integer"),
    ({"command": ["x"], "cores": 65}, 422, "65 cores"),
    ({"command": ["x"], "licenses": {"hfss": 3}}, 422, "hfss"),
    ({"command": ["x"], "gpus": 1}, 422, "GPU"),
    ({"command": ["x"], "name": "two\nlines"}, 400, "name: must be 1 to 200 characters"),
    ({"command": ["x"], "workdir": "here"}, 400, "workdir: must be an absolute path"),
    ({"command": ["x"], "env": {"A=B": "1"}}, 400, "is not the name of an environment variable"),
    ({"command": ["x"], "scheduler": "slurm"}, 400, "there is no scheduler 'slurm' here"),
    ({"command": ["x"], "depends_on": ["999"]}, 400, "job 999, which does not exist"),
    ({"command": ["x"], "queue": "a\n#SBATCH --wrap=x"}, 400, "queue: "),
    ([], 400, "object"),
    ("x", 400, "object"),
    (b"", 400, "no body"),
    (b"{", 400, "not valid JSON"),
    (b'{"command": ["x"]} trailing', 400, "not valid JSON"),
]


@pytest.mark.parametrize(("body", "status", "words"), MISTAKES)
async def test_a_mistake_in_a_spec_gets_a_sentence_that_helps(
    service: WireService, body: Any, status: int, words: str
) -> None:
    told = await service.refused(status, "POST", "/api/jobs", body)
    assert words in told["detail"]
    for noise in ("pydantic", "Traceback", "Value error", "function-", "type=", "input_value"):
        assert noise not in str(told)


async def test_mistakes_in_an_address_get_a_sentence_that_helps(service: WireService) -> None:
    for method, path, status, words in (
        ("GET", "/api/jobs/999", 404, "there is no job 999"),
        ("GET", "/api/jobs/abc", 404, "ids are numbers"),
        ("GET", "/api/jobs/-1", 404, "ids are numbers"),
        ("GET", "/api/jobs/9999999999999999999999", 404, "ids are numbers"),
        ("GET", "/api/job", 404, "/docs lists what there is"),
        ("PUT", "/api/jobs/1", 405, "PUT is not possible"),
        ("GET", "/api/jobs?state=runing", 400, "unknown state 'runing'"),
        ("GET", "/api/jobs?sate=running", 400, "did you mean 'state'?"),
        ("GET", "/api/jobs?limit=0", 400, "limit: should be greater than or equal to 1"),
        ("GET", "/api/jobs?limit=ten", 400, "limit: should be a valid integer"),
        ("GET", "/api/jobs?cursor=rubbish", 400, "cursor"),
        ("GET", "/api/jobs?q=" + "x" * 2000, 400, "q: "),
    ):
        told = await service.refused(status, method, path)
        assert words in told["detail"], told
    assert (await service.send("PUT", "/api/jobs/1")).header("Allow") == "DELETE,GET,HEAD,PATCH"


# -- what is sent to break things ---------------------------------------------------------


async def test_numbers_that_are_none_are_refused(service: WireService) -> None:
    for body in (
        b'{"command": ["x"], "walltime": NaN}',
        b'{"command": ["x"], "walltime": Infinity}',
        b'{"command": ["x"], "walltime": 1e999}',
        b'{"command": ["x"], "memory": 1e400}',
        b'{"command": ["x"], "memory": -1}',
        b'{"command": ["x"], "cores": ' + b"9" * 4000 + b"}",
        b'{"command": ["x"], "cores": ' + b"9" * 5000 + b"}",
        b'{"command": ["x"], "priority": 1' + b"0" * 300 + b"}",
    ):
        await service.refused(400, "POST", "/api/jobs", body)
    await service.refused(400, "PUT", "/api/limits", b'{"max_cpu_percent": NaN}')
    await service.refused(400, "PUT", "/api/limits", b'{"max_cpu_percent": 1e999}')


async def test_absurd_nesting_and_width_are_refused_quickly(service: WireService) -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    wide = json.dumps({f"field{number}": 1 for number in range(500_000)}).encode()
    memory = psutil.Process().memory_info().rss
    begun = asyncio.get_running_loop().time()
    for body in (deep, b'{"command": ["x"], "env": ' + deep + b"}", wide):
        for method, path in (
            ("POST", "/api/jobs"),
            ("POST", "/api/jobs/batch"),
            ("POST", "/api/jobs/cancel"),
            ("PUT", "/api/limits"),
            ("POST", "/api/session"),
        ):
            told = await service.refused(400, method, path, body)
            assert len(json.dumps(told)) < 20_000
    assert asyncio.get_running_loop().time() - begun < 30
    assert psutil.Process().memory_info().rss - memory < 400 << 20
    many = {"command": ["x"], **{f"field{number}": 1 for number in range(900)}}
    told = await service.refused(400, "POST", "/api/jobs", many)
    assert len(told["errors"]) == 20 and "more" in told["detail"]


async def test_a_body_over_the_bound_is_refused_before_it_is_sent(service: WireService) -> None:
    head = (
        f"POST /api/jobs HTTP/1.1\r\nHost: {service.authority}\r\n"
        f"Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
    )
    announced = await service.raw((head + f"Content-Length: {1 << 30}\r\n\r\n").encode())
    assert announced.status == 413 and announced.json["code"] == "too_large"
    block = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    chunked = (head + "Transfer-Encoding: chunked\r\n\r\n").encode() + block * 18 + b"0\r\n\r\n"
    assert (await service.raw(chunked)).status == 413


async def test_a_compressed_body_is_refused(service: WireService) -> None:
    import gzip

    bomb = gzip.compress(b" " * (8 << 20))
    for encoding in ("gzip", "deflate", "br", "zstd"):
        answer = await service.send(
            "POST", "/api/jobs", bomb, headers={"Content-Encoding": encoding}
        )
        assert answer.status in (400, 415), encoding


async def test_a_batch_or_a_selection_over_the_bound_is_refused(service: WireService) -> None:
    wrong: list[Any] = [
        {"jobs": []},
        {"jobs": 3},
        {"jobs": [3]},
        {"jobs": [{}] * 10_001},
        {"job": []},
    ]
    for body in wrong:
        await service.refused(400, "POST", "/api/jobs/batch", body)
    await service.refused(400, "POST", "/api/jobs/cancel", {"ids": ["1"] * 10_001})


async def test_the_loop_goes_on_while_a_large_batch_is_read(service: WireService) -> None:
    spec = {"command": ["x"], "hold": True, "env": {f"V{n}": "x" * 50 for n in range(40)}}
    body = json.dumps({"jobs": [spec] * 4000}).encode()
    begun = last = asyncio.get_running_loop().time()
    sent = asyncio.ensure_future(service.send("POST", "/api/jobs/batch", body))
    longest = 0.0
    while not sent.done():
        await asyncio.sleep(0.002)
        now = asyncio.get_running_loop().time()
        longest, last = max(longest, now - last), now
    assert (await sent).status == 201
    assert longest < max(0.5, (last - begun) / 3), (longest, last - begun)


async def test_rubbish_on_the_socket_is_no_reason_to_stop(service: WireService) -> None:
    for rubbish in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: {service.authority}\r\nX: {'y' * 20_000}\r\n\r\n".encode(),
        f"POST /api/jobs HTTP/1.1\r\nHost: {service.authority}\r\nContent-Length: 5\r\n"
        f"Transfer-Encoding: chunked\r\nAuthorization: Bearer {TOKEN}\r\n\r\n0\r\n\r\n".encode(),
        f"POST /api/jobs HTTP/1.1\r\nHost: {service.authority}\r\nContent-Length: -5\r\n\r\n".encode(),
        f"GET /api/jobs HTTP/1.1\r\nHost: {service.authority}\r\nA\x00b: c\r\n\r\n".encode(),
    ):
        answer = await service.raw(rubbish)
        assert answer.status in (400, 401, 403, 411, 414, 431), (rubbish[:60], answer)
        assert b"Traceback" not in answer.body and b"aiohttp" not in answer.body
    await service.ask("GET", "/api/health")
