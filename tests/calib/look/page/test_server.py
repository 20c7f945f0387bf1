"""The page's server: who may use it, what it answers to nonsense, and live pictures through a callable."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from aiohttp import ClientSession

from calib.errors import CalibError
from calib.page.draft import Draft
from calib.page.pictures import Pictures, Shots
from calib.page.server import Files, serve


def talk(scene, tmp_path, conversation, pictures=None):
    """Runs `conversation(session, url)` with the server beside it."""

    async def both():
        address, stop = asyncio.get_running_loop().create_future(), []
        shots = Shots(pictures or {})
        files = Files(tmp_path / "scene.yaml", tmp_path / "points.yaml")
        draft = Draft.of("plaza", scene, (), {})
        running = asyncio.create_task(
            serve(draft, shots, files, "127.0.0.1", 0, lambda: bool(stop), address.set_result)
        )
        try:
            async with ClientSession() as session:
                return await conversation(session, await address)
        finally:
            stop.append(True)
            await running

    # In a thread of its own: a browser's driver may have a loop running in this one.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(both())).result()


def own(url):
    return {"Origin": url.rstrip("/"), "Content-Type": "application/json"}


def test_only_the_page_itself_may_change_anything(plaza, tmp_path):
    async def conversation(session, url):
        answers = []
        body = json.dumps({"revision": 1, "do": "region", "corners": [[0, 0], [4, 0], [4, 4]]})
        for headers in (
            {"Origin": "http://evil.example", "Content-Type": "application/json"},
            {"Content-Type": "application/json"},
            {**own(url), "Content-Type": "text/plain"},
            {**own(url), "Host": "evil.example"},
            own(url),
        ):
            async with session.post(url + "api/edit", data=body, headers=headers) as answer:
                answers.append(answer.status)
        async with session.get(url + "api/state", headers={"Host": "evil.example"}) as answer:
            answers.append(answer.status)
        async with session.get(url) as answer:
            policy = answer.headers["Content-Security-Policy"]
        return answers, policy

    answers, policy = talk(plaza, tmp_path, conversation)
    assert answers == [403, 403, 403, 403, 200, 403]
    assert policy.startswith("default-src 'self'") and "http" not in policy


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"revision": 1, "do": "mark"}', b'{"revision": 1}']
)
def test_nonsense_is_answered_with_one_line(plaza, tmp_path, body):
    async def conversation(session, url):
        async with session.post(url + "api/edit", data=body, headers=own(url)) as answer:
            return answer.status, await answer.json()

    status, answer = talk(plaza, tmp_path, conversation)
    assert status == 400 and "\n" not in answer["error"]


def test_paths_lead_nowhere_else(plaza, tmp_path):
    async def conversation(session, url):
        found = []
        for path in (
            "static/..%2fserver.py",
            "static/server.py",
            "static/%2e%2e/server.py",
            "etc/passwd",
            "x",
        ):
            async with session.get(url + path) as answer:
                found.append(answer.status)
        async with session.get(url + "api/hover?view=north&x=nan&y=1") as answer:
            found.append(answer.status)
        return found

    assert talk(plaza, tmp_path, conversation) == [404, 404, 404, 404, 404, 400]


def test_live_pictures_come_anew_and_a_lost_camera_is_said(plaza, tmp_path):
    count = iter(range(3))

    def grab(at_s):
        number = next(count, None)
        if number is None:
            raise CalibError("rtsp://camera/stream: no picture yet: connection refused")
        return np.full((72, 96, 3), 60 * number, np.uint8)

    async def conversation(session, url):
        levels = []
        for _ in range(4):
            async with session.get(url + "api/picture/north?at=0") as answer:
                if answer.status != 200:
                    return levels, (await answer.json())["error"]
                image = cv2.imdecode(np.frombuffer(await answer.read(), np.uint8), cv2.IMREAD_COLOR)
                levels.append(int(image.mean()))
        return levels, None

    pictures = {"north": Pictures("live", grab, "rtsp://camera/stream")}
    levels, error = talk(plaza, tmp_path, conversation, pictures)
    assert levels == pytest.approx([0, 60, 120], abs=3) and "connection refused" in error
