"""Keys that ad tokens are signed with: added, rotated, retired, never shown."""

import json
import secrets
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import jwt
import psycopg
import pytest

from races import wait_until_blocked

NOW = datetime(2026, 8, 1, 12, tzinfo=UTC)
BUYER = "b0000000-0000-4000-8000-000000000001"
SECRET = bytes(range(128, 160))
OTHER_SECRET = bytes(range(160, 192))


def put(conn, kid, secret, *accepts_unnamed):
    conn.execute(
        f"select ad_signing_key_put(%s, %s{', %s' * len(accepts_unnamed)})",
        (kid, secret, *accepts_unnamed),
    )


def retire(conn, kid):
    conn.execute("select ad_signing_key_retire(%s)", (kid,))


def key(conn, kid):
    query = "select secret, active, accepts_unnamed, retired_at is not null from ad_signing_keys where kid = %s"
    return conn.execute(query, (kid,)).fetchone()


def signature_is_good(conn, secret, kid=None):
    """Claims are judged after the signature, and `{}` is none of an ad."""
    token = jwt.encode({}, secret, algorithm="HS256", headers={"kid": kid} if kid else None)
    query = "select reason from ad_token_verify(%s, %s, %s)"
    return conn.execute(query, (token, BUYER, NOW)).fetchone()[0] == "invalid_claims"


def refused(call, *args):
    with pytest.raises(psycopg.Error) as caught:
        call(*args)
    assert caught.value.sqlstate == "OC005"
    return caught.value.diag


def test_a_new_key_is_active_and_verifies_only_tokens_that_name_it(db):
    put(db, "2026-08", SECRET)

    assert key(db, "2026-08") == (SECRET, True, False, False)
    assert signature_is_good(db, SECRET, "2026-08")
    assert not signature_is_good(db, SECRET)


def test_keys_of_every_length_from_32_bytes_agree_with_pyjwt(db):
    """Over 64 bytes the key itself is hashed (RFC 2104)."""
    for length in (32, 33, 63, 64, 65, 131, 4096):
        secret = secrets.token_bytes(length)
        put(db, f"k{length}", secret)
        assert signature_is_good(db, secret, f"k{length}")


def test_a_rotation_never_leaves_a_token_without_its_key(db):
    put(db, "old", SECRET, True)
    put(db, "new", OTHER_SECRET, True)
    assert signature_is_good(db, SECRET, "old") and signature_is_good(db, OTHER_SECRET, "new")
    assert signature_is_good(db, SECRET) and signature_is_good(db, OTHER_SECRET)

    retire(db, "old")
    assert not signature_is_good(db, SECRET, "old") and signature_is_good(db, OTHER_SECRET, "new")
    assert not signature_is_good(db, SECRET) and signature_is_good(db, OTHER_SECRET)


def test_putting_a_key_again_sets_whether_it_accepts_unnamed_tokens(db):
    put(db, "k", SECRET, True)
    assert signature_is_good(db, SECRET)

    put(db, "k", SECRET)
    assert not signature_is_good(db, SECRET)
    assert key(db, "k") == (SECRET, True, False, False)


def test_putting_a_retired_key_again_makes_it_active(db):
    put(db, "k", SECRET)
    retire(db, "k")
    assert key(db, "k") == (SECRET, False, False, True)

    put(db, "k", SECRET)
    assert key(db, "k") == (SECRET, True, False, False)
    assert signature_is_good(db, SECRET, "k")


def test_retiring_twice_keeps_the_first_date(db):
    put(db, "k", SECRET)
    retire(db, "k")
    [(first,)] = db.execute("select retired_at from ad_signing_keys")
    retire(db, "k")

    assert db.execute("select retired_at from ad_signing_keys").fetchone() == (first,)


def test_a_name_never_gets_another_secret_not_even_after_its_key_was_retired(db):
    """Tokens on their way name the key that signed them."""
    put(db, "k", SECRET)
    assert "new kid" in refused(put, db, "k", OTHER_SECRET).message_hint
    retire(db, "k")
    refused(put, db, "k", OTHER_SECRET)

    assert key(db, "k") == (SECRET, False, False, True)


def test_of_two_secrets_raced_for_one_name_the_first_stays(postgresql, connect):
    with connect() as first, connect(autocommit=True) as second, ThreadPoolExecutor(1) as pool:
        put(first, "k", SECRET)
        waiting = pool.submit(refused, put, second, "k", OTHER_SECRET)
        wait_until_blocked(postgresql, second.info.backend_pid)
        first.commit()

        assert "new kid" in waiting.result(timeout=5).message_hint
        assert key(second, "k")[0] == SECRET


@pytest.mark.parametrize("secret", [None, b"", b"x" * 31])
def test_a_secret_under_32_bytes_is_refused(db, secret):
    diag = refused(put, db, "k", secret)

    assert json.loads(diag.message_detail)["field"] == "secret"
    assert key(db, "k") is None


@pytest.mark.parametrize("kid", [None, "", "k" * 256, "with space", "tab\t", "line\n", "clé", "\x7f"])
def test_a_name_that_is_not_1_to_255_visible_ascii_characters_is_refused(db, kid):
    diag = refused(put, db, kid, SECRET)

    assert json.loads(diag.message_detail)["field"] == "kid"
    assert db.execute("select count(*) from ad_signing_keys").fetchone() == (0,)


def test_the_longest_name_and_every_visible_character_are_taken(db):
    for kid in ("k" * 255, "".join(map(chr, range(0x21, 0x7F)))):
        put(db, kid, SECRET)
        assert signature_is_good(db, SECRET, kid)


def test_retiring_an_unknown_key_is_refused(db):
    for kid in ("nobody", "", None):
        assert json.loads(refused(retire, db, kid).message_detail)["field"] == "kid"


def test_accepts_unnamed_null_means_no(db):
    put(db, "k", SECRET, None)

    assert key(db, "k") == (SECRET, True, False, False)


def test_no_error_shows_a_secret(db):
    """Not even one that was given in the wrong place."""
    text = "correct horse battery staple, correct horse battery staple"
    put(db, "k", text.encode())
    diags = [
        refused(put, db, "k", text.encode() + b"2"),
        refused(put, db, "k", text.encode()[:31]),
        refused(put, db, text, SECRET),
        refused(put, db, None, text.encode()),
        refused(put, db, "", text.encode(), None),
    ]
    for diag in diags:
        said = " ".join(str(getattr(diag, name)) for name in dir(diag) if not name.startswith("_"))
        for form in (text[:20], text.encode()[:20].hex(), "pad"):
            assert form not in said


def test_a_service_role_can_neither_read_nor_write_keys(db, new_role):
    role = new_role()
    put(db, "k", SECRET)
    db.execute("select checkout_grant(%s)", (role,))

    for statement in (
        "select kid from ad_signing_keys",
        "select inner_pad from ad_signing_keys",
        "delete from ad_signing_keys",
        "select ad_signing_key_put('mine', sha256('x'))",
        "select ad_signing_key_retire('k')",
        "select ad_hmac_pad('x', 54)",
        "select * from ad_token_verify('', null, now())",
        "select checkout_attribution('{}', null, 'drop', now())",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), db.transaction():
            db.execute(f"set local role {role}")
            db.execute(statement)
