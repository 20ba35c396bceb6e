"""Addresses as values: one definition of what is never asked, how far inside an address is, how it is shown."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentic.ground.errors import FetchError, InvalidArgument
from greentic.net import addresses
from greentic.net.addresses import Reach, check_address, check_authored, never_reached, reach, shown
from greentic.net.egress import EgressPolicy, refused_address

V4 = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)
V6 = st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address)


@pytest.mark.parametrize("network", addresses.NEVER, ids=str)
def test_threat_lists_disagree_what_is_never_reached_is_refused_by_everyone(network):
    for address in {network[0], network[-1]}:
        assert never_reached(str(address)) is not None
        for mode in ("public", "unrestricted", "hosts"):
            assert refused_address(EgressPolicy(mode), str(address)) is not None
        with pytest.raises(FetchError):
            check_address("h", str(address))
        if address.version == 4:
            for spelled in (f"::ffff:{address}", f"64:ff9b::{address}"):
                assert never_reached(spelled) is not None


@given(st.one_of(V4, V6))
def test_threat_lists_disagree_public_is_what_is_in_no_list(address):
    text = str(address)
    found = addresses.parsed(text)
    listed = addresses.NEVER + addresses.PRIVATE + addresses.LOOPBACK
    if any(found in network for network in listed if network.version == found.version):
        assert reach(text) is not Reach.PUBLIC and refused_address(EgressPolicy(), text) is not None
    if refused_address(EgressPolicy(), text) is None:
        assert reach(text) is Reach.PUBLIC


@pytest.mark.parametrize(
    ("address", "outermost", "allowed"),
    [
        ("127.0.0.1", Reach.LOOPBACK, True), ("10.1.2.3", Reach.LOOPBACK, True), ("8.8.8.8", Reach.PUBLIC, True), ("8.8.8.8", Reach.LOOPBACK, True),
        ("10.1.2.3", Reach.PUBLIC, False), ("127.0.0.1", Reach.PUBLIC, False), ("127.0.0.1", Reach.PRIVATE, False), ("::1", Reach.PRIVATE, False),
        ("::ffff:127.0.0.1", Reach.PUBLIC, False), ("169.254.1.1", Reach.LOOPBACK, False), ("100.64.0.1", Reach.PUBLIC, False),
    ],
)  # fmt: skip
def test_threat_ssrf_an_answer_leads_no_further_inside(address, outermost, allowed):
    if allowed:
        check_address("h", address, outermost)
    else:
        with pytest.raises(FetchError):
            check_address("h", address, outermost)


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("https://h/b.gtbundle", "https://h/b.gtbundle"), ("https://u:s3cret@h:8/b?sig=s3cret#s3cret", "https://h:8/b?…"),
        ("https://s3cret@h", "https://h"), ("https://h?s3cret", "https://h?…"), ("oci://r.io:5/a/b@sha256:00", "oci://r.io:5/a/b@sha256:00"),
        ("oci://alpine@sha256:00", "oci://alpine@sha256:00"), ("oci://u:s3cret@r.io/a", "oci://r.io/a"), ("https://u:s3cret/x@h/", "https://…"),
        ("https://[::1]:8/b?s3cret", "https://[::1]:8/b?…"), ("file:///a?b", "file:///a?b"), ("a/b#c", "a/b#c"), ("", ""), ("https://h/\x1b[31m", "https://h/\ufffd[31m"),
    ],
)  # fmt: skip
def test_threat_secret_leak_an_address_is_shown_without_what_is_secret(url, seen):
    assert shown(url) == seen and "s3cret" not in shown(url)


@given(st.text(), st.text(alphabet="abc:@/?#[]\\%\n"))
def test_threat_secret_leak_any_text_can_be_shown(scheme, rest):
    for text in (scheme, f"https://{rest}", f"oci://{rest}", f"https://u:Q7@h/{rest}", f"https://h/{'x'}?Q7{rest}"):
        assert "Q7" not in shown(text).removeprefix(scheme) and shown(text).isprintable()


@pytest.mark.parametrize(
    "url", ["https://u:s3cret@h/b", "http://s3cret@h", "oci://u:s3cret@r.io/a", "https://u:s3cret@h?x"]
)
def test_threat_secret_before_validation_credentials_in_an_address_are_refused_when_written(url):
    with pytest.raises(InvalidArgument) as error:
        check_authored(url, "the source")
    assert "s3cret" not in f"{error.value} {error.value.hint}"


@pytest.mark.parametrize(
    "url", ["https://h/@scope/b?sig=a@b", "oci://r.io/a@sha256:00", "repo://a@sha256:00", "./a@b", "file:///a@b"]
)
def test_addresses_without_credentials_may_be_written(url):
    check_authored(url, "the source")
