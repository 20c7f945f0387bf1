import os
import stat
from pathlib import Path

import pytest
import zmq
from zmq.auth.thread import ThreadAuthenticator

from viewsync.errors import KeysError
from viewsync.keys import (
    Allowed,
    ClientKeys,
    KeyFolder,
    KeyPair,
    load_allow_list,
    load_client_keys,
    load_keypair,
    load_public_key,
)

NORTH = Allowed("north", "agent", "site", "plaza", ("north",))


@pytest.fixture
def keys(tmp_path: Path) -> KeyFolder:
    return KeyFolder(tmp_path / "keys")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_keys_made_here_open_a_real_curve_connection_and_name_their_owner(keys: KeyFolder) -> None:
    keys.make_hub()
    keys.make_client(NORTH)
    hub = load_keypair(keys.folder / "hub.key")
    client = load_client_keys(keys.folder / "agent-north.key", keys.folder / "hub.pub")
    with zmq.Context() as context:
        authenticator = ThreadAuthenticator(context)
        authenticator.start()
        authenticator.configure_curve(location=zmq.auth.CURVE_ALLOW_ANY)
        try:
            with context.socket(zmq.ROUTER) as router, context.socket(zmq.DEALER) as dealer:
                router.linger = dealer.linger = 0
                router.curve_server, router.curve_secretkey = True, hub.secret
                port = router.bind_to_random_port("tcp://127.0.0.1")
                client.secure(dealer)
                dealer.connect(f"tcp://127.0.0.1:{port}")
                dealer.send(b"hello")
                assert router.poll(10_000)
                frame = router.recv_multipart(copy=False)[-1]
                owner = load_allow_list(keys.folder / "allow.yaml")[frame.get("User-Id")]
                assert owner == NORTH
        finally:
            authenticator.stop()


def test_making_again_changes_nothing_and_force_changes_one_secret(keys: KeyFolder) -> None:
    assert keys.make_hub()
    assert keys.make_client(NORTH)
    before = contents(keys.folder)
    assert not keys.make_hub()
    assert not keys.make_client(NORTH)
    assert contents(keys.folder) == before
    assert keys.make_client(NORTH, force=True)
    after = contents(keys.folder)
    assert {name for name in after if after[name] != before[name]} == {"agent-north.key", "allow.yaml"}
    assert list(load_allow_list(keys.folder / "allow.yaml").values()) == [NORTH]


def test_rights_change_without_a_new_secret(keys: KeyFolder) -> None:
    keys.make_client(NORTH)
    before = load_keypair(keys.folder / "agent-north.key")
    more = Allowed("north", "agent", "site", "plaza", ("north", "east"))
    assert not keys.make_client(more)
    assert load_keypair(keys.folder / "agent-north.key") == before
    assert load_allow_list(keys.folder / "allow.yaml") == {before.public.decode(): more}


def test_secrets_are_for_their_owner_only(keys: KeyFolder) -> None:
    old = os.umask(0)
    try:
        keys.make_hub()
        keys.make_client(NORTH)
    finally:
        os.umask(old)
    assert stat.S_IMODE(keys.folder.stat().st_mode) == 0o700
    for name in ("hub.key", "agent-north.key"):
        assert stat.S_IMODE((keys.folder / name).stat().st_mode) == 0o600
    secret = load_keypair(keys.folder / "hub.key").secret
    for name in ("hub.pub", "allow.yaml", "agent-north.key"):
        assert secret not in (keys.folder / name).read_bytes()
    assert secret.decode() not in repr(load_keypair(keys.folder / "hub.key"))


def test_a_secret_that_others_can_read_is_pointed_out(
    keys: KeyFolder, caplog: pytest.LogCaptureFixture
) -> None:
    keys.make_hub()
    path = keys.folder / "hub.key"
    load_keypair(path)
    assert not caplog.records
    path.chmod(0o644)
    load_keypair(path)
    assert f"chmod 600 {path}" in caplog.text


def test_a_view_has_one_agent_and_a_refused_agent_leaves_no_trace(keys: KeyFolder) -> None:
    keys.make_client(NORTH)
    before = contents(keys.folder)
    with pytest.raises(
        KeysError, match=r"view north of site/plaza belongs to agent north and to agent thief"
    ):
        keys.make_client(Allowed("thief", "agent", "site", "plaza", ("east", "north")))
    assert contents(keys.folder) == before
    keys.make_client(Allowed("other", "agent", "site", "elsewhere", ("north",)))


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "ü", "x" * 65, None, 3])
def test_names_are_words_that_can_be_files(name: object) -> None:
    with pytest.raises(KeysError, match="not a valid name"):
        Allowed(name, "subscriber")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: text.replace("schema: 1", "schema: 2"), "schema is 2"),
        (lambda text: text.replace("role: agent", "role: admin"), "agent or subscriber"),
        (lambda text: text.replace("views:", "veiws:"), "'veiws'"),
        (lambda text: text.replace("  site: site\n", ""), "site"),
        (lambda text: text.replace("public: ", "public: x"), "40 characters"),
        (lambda text: "just words", "not a file that viewsync wrote"),
        (lambda text: "allow: [", "not a file that viewsync wrote"),
    ],
)
def test_a_damaged_allow_list_is_refused_by_name(keys: KeyFolder, damage, says: str) -> None:
    keys.make_client(NORTH)
    path = keys.folder / "allow.yaml"
    # One form of quoting, whatever characters the random key holds.
    key = load_keypair(keys.folder / "agent-north.key").public.decode()
    path.write_text(damage(path.read_text().replace(f"'{key}'", key).replace(key, "k" * 40)))
    with pytest.raises(KeysError, match=says) as caught:
        load_allow_list(path)
    assert str(path) in str(caught.value)


def test_a_damaged_or_missing_key_is_refused_by_name(keys: KeyFolder) -> None:
    keys.make_hub()
    one, other = (KeyPair(*zmq.curve_keypair()) for _ in range(2))
    with pytest.raises(KeysError, match="does not belong"):
        KeyPair(one.public, other.secret)
    with pytest.raises(KeysError, match="40 characters"):
        ClientKeys(one, b"short")
    path = keys.folder / "hub.key"
    path.write_text(path.read_text().replace("secret:", "sekret:"))
    for load, wrong in (
        (load_keypair, path),
        (load_keypair, keys.folder / "no.key"),
        (load_public_key, keys.folder),
    ):
        with pytest.raises(KeysError) as caught:
            load(wrong)
        assert str(wrong) in str(caught.value)
        assert "viewsync keys make" in str(caught.value)
