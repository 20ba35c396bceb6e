"""The rules of proxies and of where components may send requests, one by one. Pure."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentic.ground import optional
from greentic.ground.errors import InvalidArgument
from greentic.net.egress import EgressPolicy, read_policy, refused_address, refused_host
from greentic.net.proxies import NONE, Proxies, Proxy, literal, proxies_of, proxy_for

HTTP = Proxy("web.test", 3128, None, "HTTP_PROXY")
HTTPS = Proxy("tls.test", 80, None, "HTTPS_PROXY")
ALL = Proxy("all.test", 8080, None, "ALL_PROXY")


def through(bypass: str) -> Proxies:
    return proxies_of({"HTTP_PROXY": "web.test:3128", "NO_PROXY": bypass})


def is_direct(bypass: str, host: str, port: int = 80) -> bool:
    return proxy_for(through(bypass), "http", host, port) is None


# -- which proxies there are ----------------------------------------------------------------------------------------


def test_each_scheme_has_its_proxy_or_that_of_all() -> None:
    every = {"HTTP_PROXY": "http://web.test:3128", "HTTPS_PROXY": "tls.test", "ALL_PROXY": "all.test:8080"}
    assert proxies_of(every) == Proxies(HTTP, HTTPS, ())
    assert proxies_of({"ALL_PROXY": "all.test:8080"}) == Proxies(ALL, ALL, ())
    assert proxies_of({"HTTPS_PROXY": "tls.test", "ALL_PROXY": "all.test:8080"}) == Proxies(ALL, HTTPS, ())
    assert proxies_of({"HTTP_PROXY": "http://web.test:3128"}) == Proxies(HTTP, None, ())
    assert proxies_of({}) == proxies_of({"HTTP_PROXY": ""}) == NONE
    for scheme, expected in (("http", HTTP), ("https", HTTPS)):
        assert proxy_for(proxies_of(every), scheme, "h.test", 80) == expected
        assert proxy_for(NONE, scheme, "h.test", 80) is None


def test_the_lower_spelling_is_read_first() -> None:
    assert proxies_of({"HTTP_PROXY": "upper.test", "http_proxy": "web.test:3128"}).http == Proxy(
        "web.test", 3128, None, "HTTP_PROXY"
    )


@pytest.mark.parametrize(
    ("told", "pair"),
    [("http://u:p%40w@web.test:3128", "u:p@w"), ("u%C3%A4@web.test:3128", "uä:"), ("http://:p@web.test:3128", ":p")],
)
def test_who_asks_is_told_to_the_proxy_and_to_nobody_else(told: str, pair: str) -> None:
    found = proxies_of({"HTTP_PROXY": told}).http
    assert found == Proxy("web.test", 3128, f"Basic {base64.b64encode(pair.encode()).decode()}", "HTTP_PROXY")
    assert str(found) == "http://web.test:3128 of HTTP_PROXY"


@pytest.mark.parametrize(
    "told", ["http://", "http://:3128", "http://h:x", "http://[::1", "h:99999", "http://a\u200db.test"]
)
def test_what_is_no_address_of_a_proxy_is_refused_without_being_shown(told: str) -> None:
    with pytest.raises(InvalidArgument, match="HTTPS_PROXY is no address of a proxy; expected http://host:port"):
        proxies_of({"HTTPS_PROXY": told})


def test_a_proxy_of_another_kind_is_done_without_and_said() -> None:
    optional.forget()
    try:
        assert proxies_of({"HTTP_PROXY": "socks5://u:s3cret@web.test:1", "HTTPS_PROXY": "tls.test"}) == Proxies(
            None, HTTPS
        )
        (said,) = optional.lacking()
        assert "the proxy of HTTP_PROXY" in said and "socks5://" in said and "s3cret" not in said
    finally:
        optional.forget()


# -- who is asked past them -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "near",
    ["localhost", "LOCALHOST.", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "127.1", "2130706433", "0x7f.1"],
)
def test_loopback_is_never_asked_through_a_proxy(near: str) -> None:
    assert is_direct("", near)


@pytest.mark.parametrize("far", ["localhost.test", "128.0.0.1", "::2", "h.test", "2852039166"])
def test_all_else_is_asked_through_it(far: str) -> None:
    assert proxy_for(through(""), "http", far, 80) == HTTP


@pytest.mark.parametrize(
    ("bypass", "host", "direct"),
    [
        ("*", "h.test", True), ("*", "10.1.2.3", True), ("h.test", "h.test", True), ("H.Test.", "h.test.", True), ("h.test", "a.b.h.test", True), ("h.test", "xh.test", False),
        ("h.test", "h.test.evil.test", False), (".h.test", "h.test", True), (".h.test", "a.h.test", True), ("*.h.test", "a.h.test", True), ("*.h.test", "xh.test", False),
        ("a.test , ,h.test", "h.test", True), ("a.test h.test", "h.test", False), ("", "h.test", False), ("10.1.2.3", "10.1.2.3", True), ("10.1.2.3", "10.1.2.4", False),
        ("10.1.2.3", "h.test", False), ("2.3", "10.1.2.3", False), (".2.3", "10.1.2.3", False), ("10.0.0.0/8", "10.255.0.1", True), ("10.0.0.0/8", "11.0.0.1", False),
        ("10.1.2.3/8", "10.255.0.1", True), ("10.0.0.0/8", "h.test", False), ("0.0.0.0/0", "fd00::1", False), ("::/0", "10.1.2.3", False), ("10.0.0.0/99", "10.1.2.3", False),
        ("fd00::/8", "fd12::1", True), ("fd00::1", "fd00::1", True), ("[fd00::1]", "fd00::1", True), ("fd00::1", "fd00:0::1", True), ("::ffff:10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "0xa.0x1.0x2.0x3", True), ("10.0.0.0/8", "167772161", True), ("fe80::1", "fe80::1%eth0", True), ("h.test/8", "h.test", False),
    ],
)  # fmt: skip
def test_hosts_domains_addresses_and_networks_are_asked_past_it(bypass: str, host: str, direct: bool) -> None:
    assert is_direct(bypass, host) is direct


@pytest.mark.parametrize(
    ("bypass", "host", "port", "direct"),
    [
        ("h.test:80", "h.test", 80, True), ("h.test:80", "h.test", 81, False), ("h.test:80", "a.h.test", 80, True), ("10.1.2.3:80", "10.1.2.3", 80, True),
        ("10.1.2.3:80", "10.1.2.3", 81, False), ("[fd00::1]:80", "fd00::1", 80, True), ("[fd00::1]:80", "fd00::1", 81, False), ("fd00::1:80", "fd00::1:80", 81, True),
        ("h.test:65535", "h.test", 65535, True), ("h.test:65536", "h.test", 0, False), ("h.test:080", "h.test", 80, True), ("h.test:x", "h.test", 80, False),
        ("h.test:٨٠", "h.test", 80, False), ("*:81", "h.test", 80, False), ("h.test:", "h.test", 80, False),
    ],
)  # fmt: skip
def test_an_entry_with_a_port_is_for_that_port_alone(bypass: str, host: str, port: int, direct: bool) -> None:
    assert is_direct(bypass, host, port) is direct


@pytest.mark.parametrize(
    ("bypass", "host"), [("faß.test", "xn--fa-hia.test"), ("*.faß.test:80", "a.xn--fa-hia.test"), (".BÜCHER.test", "xn--bcher-kva.test"), ("ü.ü", "xn--tda.xn--tda")]
)  # fmt: skip
def test_an_international_name_is_compared_in_ascii(bypass: str, host: str) -> None:
    assert is_direct(bypass, host) and not is_direct(bypass, "other.test")


def test_an_entry_that_is_no_host_lets_none_past_and_hides_no_other() -> None:
    assert through("a\u200db.test,h.test").bypass == ("a\u200db.test", "h.test") and is_direct(
        "a\u200db.test,h.test", "h.test"
    )


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("10.1.2.3", "10.1.2.3"), ("2852039166", "169.254.169.254"), ("0xa9fea9fe", "169.254.169.254"), ("0251.254.169.254", "169.254.169.254"), ("127.1", "127.0.0.1"),
        ("::1", "::1"), ("fe80::1%eth0", "fe80::1"), ("h.test", None), ("", None), ("1.2.3.4.5", None), ("256.1.1.1", None),
    ],
)  # fmt: skip
def test_an_address_is_one_in_every_spelling_that_a_resolver_takes(host: str, address: str | None) -> None:
    assert literal(host) == address


@given(st.text(max_size=20), st.text(max_size=20), st.integers(0, 65535))
def test_any_entry_and_any_host_are_compared(bypass: str, host: str, port: int) -> None:
    assert proxy_for(through(bypass), "http", host, port) in (None, HTTP)


# -- where components may send requests -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        (None, EgressPolicy("public")), ("", EgressPolicy("public")), (" public ", EgressPolicy("public")), ("none", EgressPolicy("none")), (" unrestricted", EgressPolicy("unrestricted")),
        ("API.test., *.B.test", EgressPolicy("hosts", ("api.test", "*.b.test"))), ("a.test,,", EgressPolicy("hosts", ("a.test",))), ("10.1.2.3", EgressPolicy("hosts", ("10.1.2.3",))),
        ("[::1], fd00::1", EgressPolicy("hosts", ("::1", "fd00::1"))), ("none,a", EgressPolicy("hosts", ("none", "a"))),
    ],
)  # fmt: skip
def test_a_policy_is_read_from_one_text(text: str | None, policy: EgressPolicy) -> None:
    assert read_policy(text) == policy


@pytest.mark.parametrize("text", ["https://a.test", "a.test/x", "a.test:80", "a b", "a.test,b\x07", "a.test/x,b.test"])
def test_what_is_no_host_is_no_policy(text: str) -> None:
    with pytest.raises(ValueError, match="is no host; expected names such as"):
        read_policy(text)


def test_a_bracket_alone_makes_no_address_of_a_name() -> None:
    assert read_policy("[a").hosts == ("[a",) and read_policy("a]").hosts == ("a]",)


@pytest.mark.parametrize(
    ("pattern", "host", "allowed"),
    [
        ("a.test", "a.test", True), ("a.test", "A.Test.", True), ("a.test", "x.a.test", False), ("a.test", "xa.test", False), ("*.a.test", "x.a.test", True),
        ("*.a.test", "x.y.a.test", True), ("*.a.test", "a.test", False), ("*.a.test", "xa.test", False), ("10.1.2.3", "10.1.2.3", True), ("a.test", "test", False),
    ],
)  # fmt: skip
def test_a_list_lets_pass_what_is_on_it_and_names_below_a_star(pattern: str, host: str, allowed: bool) -> None:
    told = refused_host(read_policy(f"other.test,{pattern}"), host)
    assert told == (None if allowed else f"`{host}` is not among the allowed hosts")


@pytest.mark.parametrize("text", ["public", "unrestricted", "metadata.google.internal", "none"])
def test_metadata_services_and_no_host_are_refused_whatever_is_allowed(text: str) -> None:
    for host, told in (
        ("Metadata.Google.Internal.", "is a metadata service"),
        ("", "the address has no host"),
        ("a\u200db", ""),
    ):
        found = refused_host(read_policy(text), host)
        assert found is not None and (text == "none" or told in found)
    if text != "metadata.google.internal":
        assert (refused_host(read_policy(text), "a.test") is None) is (text != "none")


@pytest.mark.parametrize(
    ("mode", "address", "refused"),
    [
        ("public", "8.8.8.8", None), ("public", "10.1.2.3", "the address 10.1.2.3 is not public"), ("public", "::ffff:10.1.2.3", "the address 10.1.2.3 is not public"),
        ("unrestricted", "10.1.2.3", None), ("hosts", "127.0.0.1", None), ("hosts", "169.254.169.254", "metadata"), ("unrestricted", "fe80::1", "link-local"),
        ("public", "100.100.100.200", "metadata"),
    ],
)  # fmt: skip
def test_an_address_is_refused_by_the_policy_or_always(mode: str, address: str, refused: str | None) -> None:
    text = "a.test" if mode == "hosts" else mode
    found = refused_address(read_policy(text), address)
    assert found is None if refused is None else found is not None and refused in found
