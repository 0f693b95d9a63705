"""The fake refuses what it does not know, so that a test which passes has met only known calls."""

import base64
import json
import urllib.error
import urllib.request

import pytest

from tests.wandb.fake_backend import API_KEY, FakeBackend


def post(url, body, key=API_KEY):
    token = base64.b64encode(f"api:{key}".encode()).decode()
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Authorization": f"Basic {token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


@pytest.fixture
def fake():
    with FakeBackend() as started:
        yield started


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/graphql", {"query": "mutation DeleteProject($id: ID!) { deleteProject }"}, "DeleteProject"),
        ("/files/somebody/gaugefix/a/other", {}, "POST /files/somebody/gaugefix/a/other"),
    ],
)
def test_an_unknown_call_is_refused_and_kept(path, body, named, fake):
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(fake.url + path, body)
    caught.value.close()
    assert caught.value.code == 400
    assert [call.startswith(named) for call in fake.refused] == [True]


def test_a_wrong_key_is_refused(fake):
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(f"{fake.url}/graphql", {"query": "query Viewer { viewer { id } }"}, key="f" * 40)
    caught.value.close()
    assert caught.value.code == 401


def test_history_sent_again_counts_once(fake):
    stream = f"{fake.url}/files/somebody/gaugefix/a/file_stream"
    for offset, rows in ((0, [1, 2]), (1, [2, 3])):
        content = [json.dumps({"x": row}) for row in rows]
        post(stream, {"files": {"wandb-history.jsonl": {"offset": offset, "content": content}}})
    assert [row["x"] for row in fake.runs["a"].history] == [1, 2, 3]
