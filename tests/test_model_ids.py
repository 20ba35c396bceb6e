"""Identifiers: grammars at the edge, and what is never a path part."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentic.ground.errors import InvalidArgument
from greentic.model import ids
from simulators import CountingRandom, FakeClock


@pytest.mark.parametrize("good", ["local", "prod-1", "a.b_c", "A" * 200, "..."])
def test_env_ids_that_are_accepted(good):
    assert ids.check_env_id(good) == good
    assert ids.is_env_id(good)


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "a b", "é", "a\0", "a\n", "A" * 201])
def test_env_ids_that_are_refused(bad):
    assert not ids.is_env_id(bad)
    with pytest.raises(InvalidArgument) as error:
        ids.check_env_id(bad, field="env_id")
    assert error.value.message.startswith("env_id: ")


@pytest.mark.parametrize(
    "bad", ["", " ", ".", "..", "a/b", "a\\b", "C:", "a\0b", "a\x7f", "a\x85", "x" * 201, "é" * 101, "\ud800"]
)
def test_threat_id_traversal_segments(bad):
    assert not ids.is_safe_segment(bad) or not bad.strip()
    with pytest.raises(InvalidArgument):
        ids.check_segment(bad, field="bundle_id")


@pytest.mark.parametrize("bad", ["", "/a", "a//b", "../a", "a/../b", "a/.", "a\\b/c", "a/b/", "C:/x"])
def test_threat_id_traversal_references(bad):
    assert not ids.is_contained_ref(bad)


@given(st.text())
def test_a_safe_segment_never_changes_a_path(text):
    if ids.is_safe_segment(text):
        assert "/" not in text and "\0" not in text and text not in (".", "..")
        assert ids.is_contained_ref(f"revisions/{text}/x")


def test_ulids_are_minted_in_order_and_read_in_either_case():
    clock, random = FakeClock(), CountingRandom()
    minted = [ids.mint_ulid(clock, random) for _ in range(5)]
    assert minted == sorted(minted) and len(set(minted)) == 5
    assert ids.check_ulid(minted[0].lower(), field="x") == minted[0]


@given(st.integers(0, 2**128 - 1))
def test_ulid_of_any_number_is_a_ulid(value):
    assert len(ids.check_ulid(ids.ulid_from_int(value), field="x")) == 26


@pytest.mark.parametrize("bad", ["x", "0" * 25, "8" + "0" * 25, "I" + "0" * 25, "é" + "0" * 25, "ﬃ" + "0" * 25])
def test_ulids_that_are_refused(bad):
    with pytest.raises(InvalidArgument, match="revision_id: invalid"):
        ids.check_ulid(bad, field="revision_id")


@pytest.mark.parametrize("good", ["0.0.0", "1.2.3-rc.1+b5", "10.20.30"])
def test_semver(good):
    assert ids.is_semver(good)


@pytest.mark.parametrize("bad", ["1", "1.2", "01.2.3", "1.2.3-", "v1.2.3", "1.2.3-01", "1.2.3\n", "١.٢.٣"])
def test_not_semver(bad):
    assert not ids.is_semver(bad)


def test_a_digest_is_lower_case_sha256():
    assert ids.is_digest("sha256:" + "a" * 64)
    assert not any(ids.is_digest(d) for d in ("sha256:00", "a" * 64, "sha256:" + "A" * 64, "sha256:" + "a" * 64 + "\n"))


def test_shown_is_short_and_printable():
    assert ids.shown("a\x1b[31m") == "a?[31m"
    assert len(ids.shown("x" * 500)) == 80


def test_a_reference_names_files_as_long_as_file_systems_do():
    assert ids.is_contained_ref(f"a/{'b' * 255}") and not ids.is_contained_ref(f"a/{'b' * 256}")


def test_a_name_that_is_too_long_is_told_with_how_long_it_may_be():
    """In bytes, as file systems count: a name of 67 Japanese characters was said to have more than 200."""
    assert ids.check_env_id("e" * 200) and ids.check_segment("日" * 66, field="bundle_id")
    with pytest.raises(InvalidArgument, match=r"directory name \(at most 200 long\)"):
        ids.check_env_id("e" * 201)
    with pytest.raises(InvalidArgument, match="longer than 200 bytes"):
        ids.check_segment("日" * 67, field="bundle_id")
