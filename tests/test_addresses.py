"""Addresses as values: one definition of what is never asked, how far inside an address is, how it is shown."""

from __future__ import annotations

import ipaddress
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentic.deployments.worker_status import checked_addresses
from greentic.distribute.mirrors import check_mirror
from greentic.distribute.sources import source_for
from greentic.ground.errors import FetchError, GreenticError, InvalidArgument, ServerBusy
from greentic.ground.host_name import ascii_host
from greentic.net import addresses
from greentic.net.addresses import Reach, check_address, check_authored, never_reached, reach, shown
from greentic.net.dial import reason
from greentic.net.document import read_small
from greentic.net.egress import EgressPolicy, read_policy, refused_address, refused_host
from greentic.net.request import MAX_REDIRECTS, origin, send
from greentic.net.terms import Terms, asked_to_wait, terms_of
from greentic.publication.place import is_directory
from greentic.registry.reference import mapped
from simulators import FakeClock

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


# -- documents, terms and hosts -------------------------------------------------------------------------------------


def test_small_documents_from_files_and_what_is_no_place_of_one(tmp_path):
    path = tmp_path / "d é"
    path.write_bytes(b"x" * 10)
    for reference in (str(path), f"file://{path}", path.as_uri()):
        assert read_small(reference, 10, Terms()) == b"x" * 10
        with pytest.raises(FetchError, match="larger than 9 bytes"):
            read_small(reference, 9, Terms())
    assert (
        read_small(str(tmp_path / "absent"), 10, Terms()) is None
        and read_small(str(path / "below"), 10, Terms()) is None
    )
    for reference in ("ftp://a/b", "oci://a/b:1"):
        with pytest.raises(FetchError, match="is no address of a document"):
            read_small(reference, 10, Terms())


def test_hosts_that_egress_refuses_say_why():
    hosts = EgressPolicy("hosts", ("a.example", "*.b.example"))
    assert refused_host(hosts, "A.example.") is None and refused_host(hosts, "x.b.example") is None
    assert refused_host(hosts, "b.example") == "`b.example` is not among the allowed hosts"
    for policy in (hosts, EgressPolicy("public"), EgressPolicy("unrestricted")):
        assert refused_host(policy, "metadata.google.internal.") == "`metadata.google.internal.` is a metadata service"
        assert refused_host(policy, "") == "the address has no host"
    assert refused_host(EgressPolicy("none"), "a.example") == "http client disabled by policy"
    with pytest.raises(InvalidArgument, match="has no host"):
        addresses.check_host_name("")


# -- international names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "ascii_form"),
    [
        ("faß.example", "xn--fa-hia.example"), ("FAẞ.example", "xn--fa-hia.example"), ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.Example.", "xn--bcher-kva.example."), ("βόλος.gr", "xn--nxasmm1c.gr"), ("日本語。jp", "xn--wgv71a119e.jp"),
        ("ｅxample。com", "example.com"), ("①２７.0.0.1", "127.0.0.1"), ("A.b", "a.b"), ("[::1]", "[::1]"), ("", ""), ("bücher.example。", "xn--bcher-kva.example"),
    ],
)  # fmt: skip
def test_a_host_has_one_ascii_form_that_of_browsers(host, ascii_form):
    assert ascii_host(host).rstrip(".") == ascii_form.rstrip(".")


@pytest.mark.parametrize("host", ["a\u200db.test", "a\u200c.test", "\ud800.test", "ü" * 64 + ".test", "ü..test", "é/x", "é@x", "é:1", "。", "ü." * 127 + "x"])  # fmt: skip
def test_what_no_name_can_be_made_of_is_refused_in_words(host):
    with pytest.raises(ValueError) as refused:
        ascii_host(host)
    assert "codec" not in str(refused.value) or "ASCII form" in str(refused.value)
    assert str(refused.value).isprintable()
    assert refused_host(EgressPolicy("unrestricted"), host) is not None
    with pytest.raises(GreenticError):
        send(f"http://{host}/", "x", Terms())


@given(st.text(max_size=30))
def test_a_host_in_ascii_stays_as_it_is(host):
    try:
        found = ascii_host(host)
    except ValueError:
        return
    assert found.isascii() and ascii_host(found) == found


@given(st.text(st.characters(min_codepoint=128), min_size=1, max_size=8))
def test_threat_ssrf_a_name_is_judged_by_what_it_becomes(label):
    """What is compared with a list is what is looked up: one text, whatever letters it was written in."""
    listed = EgressPolicy("hosts", ("allowed.test", "*.allowed.test"))
    for host in (f"{label}.test", f"allowed{label}test", f"{label}.allowed.test", f"allowed.test{label}"):
        if refused_host(listed, host) is None:
            name = ascii_host(host).rstrip(".")
            assert name == "allowed.test" or name.endswith(".allowed.test")


def test_threat_ssrf_lists_and_requests_of_components_meet_in_ascii():
    assert read_policy("faß.example, *.BÜCHER.example").hosts == ("xn--fa-hia.example", "*.xn--bcher-kva.example")
    listed = read_policy("faß.example,*.bücher.example")
    for host in ("faß.example", "FAẞ.EXAMPLE.", "xn--fa-hia.example", "a.ｂücher.example"):
        assert refused_host(listed, host) is None
    for host in ("fass.example", "bücher.example", "a\u200db.example"):
        assert refused_host(listed, host) is not None
    assert "metadata service" in str(refused_host(EgressPolicy("unrestricted"), "ｍetadata。google.internal"))
    with pytest.raises(ValueError):
        read_policy("a\u200db.example")


def test_a_registry_is_asked_by_its_ascii_name():
    reference = mapped("OCI://faß.example:5000/bots/hello:1", {})
    assert reference.registry == "xn--fa-hia.example:5000" and str(reference) == "xn--fa-hia.example:5000/bots/hello:1"
    with pytest.raises(FetchError, match="the registry is no host"):
        mapped("oci://a\u200db.example/bots/hello", {})
    assert mapped("REPO://hello", {"GREENTIC_REPO_REGISTRY_BASE": "OCI://r.example/b"}).repository == "b/hello"


@pytest.mark.parametrize("scheme", ["http", "HTTP", "Https", "OCI", "Repo", "STORE", "File"])
def test_a_scheme_may_be_written_in_capitals_wherever_one_is_chosen_by(tmp_path, scheme, monkeypatch):
    (tmp_path / "x").write_bytes(b"x")
    address = f"{scheme}://{tmp_path / 'x' if scheme == 'File' else 'h.example/bots/x:1'}"
    source, told = source_for(address)
    assert type(source) is type(source_for(addresses.lower_scheme(address))[0]) and "OCI" not in told
    assert check_mirror(f"{scheme}://h/{{name}}").startswith(f"{scheme.lower()}://")
    assert addresses.lower_scheme(shown(address)) == shown(addresses.lower_scheme(address))
    if scheme == "File":
        assert read_small(address, 9, Terms()) == b"x" and is_directory(address)
    else:
        with pytest.raises(InvalidArgument, match="credentials"):
            check_authored(f"{scheme}://u:p@h.example/x", "x")
    if scheme.lower().startswith("http"):
        assert checked_addresses([address]) == [address]


def test_a_path_with_a_colon_is_no_scheme():
    assert addresses.lower_scheme("/A/B://c") == "/A/B://c" and addresses.lower_scheme("C:/x") == "C:/x"


def test_terms_end_when_the_question_began_plus_the_total():
    class Still(FakeClock):
        at = 100.0

        def monotonic(self) -> float:
            return self.at

    clock = Still()
    terms = Terms(idle=10, total=30, clock=clock)
    assert terms.wait() == 10 and terms.left() == 30, "nothing has begun"
    begun = terms.begun()
    assert begun.ends == 130 and begun.begun() is begun
    clock.at = 125
    assert begun.wait() == begun.left() == 5
    clock.at = 129.5
    assert begun.wait() == 0.5, "the last half second may be used"
    for clock.at in (130, 131):
        with pytest.raises(TimeoutError, match="not done after 30 s"):
            begun.wait()
        assert begun.left() == 0
    assert terms_of({"GREENTIC_FETCH_IDLE_SECONDS": "3600"}).idle == 3600
    with pytest.raises(InvalidArgument):
        terms_of({"GREENTIC_FETCH_IDLE_SECONDS": "3601"})


def test_why_a_connection_failed_in_a_few_words():
    assert (
        reason(TimeoutError("timed out"), 7)
        == reason(TimeoutError("_ssl.c: handshake timed out"), 7)
        == "no answer within 7 s"
    )
    assert reason(TimeoutError("not done after 30 s"), 7) == "not done after 30 s"
    assert reason(TimeoutError(), 7) == "no answer within 7 s"
    assert reason(ConnectionRefusedError(111, "Connection refused")) == "Connection refused"
    assert reason(ValueError()) == "ValueError" and reason(ValueError("x")) == "x"


def test_an_origin_has_the_port_of_its_scheme():
    assert origin("https://a.example/x") == ("https", "a.example", 443) == origin("https://a.example:443")
    assert origin("http://a.example") == ("http", "a.example", 80) != origin("https://a.example:80")
    with pytest.raises(FetchError, match="without a network"):
        send("http://127.0.0.1:9/x", "x", Terms(offline=True))


@pytest.mark.parametrize("redirects", [0, 1, MAX_REDIRECTS, MAX_REDIRECTS + 1])
def test_redirects_are_followed_so_far_and_no_further(redirects):
    left = [redirects]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            again = left[0] > 0
            left[0] -= again
            self.send_response(302 if again else 200)
            if again:
                self.send_header("Location", f"/{left[0]}")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/first"
        if redirects > MAX_REDIRECTS:
            with pytest.raises(FetchError, match=f"more than {MAX_REDIRECTS} redirects"):
                send(url, url, Terms())
        else:
            answer = send(url, url, Terms())
            assert (answer.status, answer.redirected) == (200, redirects > 0)
            answer.close()
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "headers", "expected", "told"),
    [
        (302, {}, None, "302 that does not say where to"), (307, {"Location": "ftp://x"}, None, "redirect to unsupported"),
        (404, {}, None, None), (410, {}, None, None), (405, {}, FetchError, "http status: 405"), (403, {}, FetchError, "http status: 403"),
        (503, {}, ServerBusy, "http status: 503"), (429, {"Retry-After": "7"}, ServerBusy, "http status: 429"),
    ],
)  # fmt: skip
def test_each_status_means_one_thing(status, headers, expected, told):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/x"
        if told is None:
            assert read_small(url, 10, Terms(tries=1)) is None
            return
        with pytest.raises(FetchError, match=told) as error:
            read_small(url, 10, Terms(tries=1))
        assert expected is None or type(error.value) is expected
        if "Retry-After" in headers:
            assert asked_to_wait(error.value) == 7.0
    finally:
        server.shutdown()
        server.server_close()


# -- what an address is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "leads_to"),
    [
        ("10.1.2.3", "10.1.2.3"), ("::ffff:10.1.2.3", "10.1.2.3"), ("64:ff9b::10.1.2.3", "10.1.2.3"), ("64:ff9b:1::10.1.2.3", "10.1.2.3"), ("2002:a01:203::", "10.1.2.3"),
        ("2002:a01:203:ffff:ffff:ffff:ffff:ffff", "10.1.2.3"), ("::ffff:0:10.1.2.3", "10.1.2.3"), ("::10.1.2.3", "10.1.2.3"), ("::2", "0.0.0.2"), ("::1", "::1"), ("::", "::"),
        ("fe80::1%eth0", "fe80::1"), ("2001:db8::1", "2001:db8::1"), ("64:ff9c::10.1.2.3", "64:ff9c::a01:203"),
    ],
)  # fmt: skip
def test_an_address_is_the_one_that_it_leads_to(text: str, leads_to: str) -> None:
    assert str(addresses.parsed(text)) == leads_to
    assert addresses.is_address(text) and not addresses.is_address(f"x{text}")


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "169.254.1.1", "fe80::1", "168.63.129.16", "fd00:ec2::254", "2002:a9fe:a9fe::"])  # fmt: skip
def test_what_is_no_machines_or_a_clouds_own_is_never_reached(address: str) -> None:
    found = addresses.parsed(address)
    assert never_reached(address) == f"the address {found} is link-local or a metadata service"
    with pytest.raises(FetchError, match=f"`h`: the address {found} is .*bundles never come from there") as error:
        check_address("h", address)
    assert error.value.hint == "use the distributor's own address"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", Reach.PUBLIC), ("2606:4700::1", Reach.PUBLIC), ("10.0.0.1", Reach.PRIVATE), ("172.31.255.255", Reach.PRIVATE), ("172.32.0.1", Reach.PUBLIC),
        ("100.127.0.1", Reach.PRIVATE), ("100.128.0.1", Reach.PUBLIC), ("fc00::1", Reach.PRIVATE), ("fec0::1", Reach.PRIVATE), ("192.0.2.1", Reach.PRIVATE),
        ("127.0.0.1", Reach.LOOPBACK), ("127.255.0.1", Reach.LOOPBACK), ("::1", Reach.LOOPBACK), ("::ffff:127.0.0.1", Reach.LOOPBACK), ("::ffff:8.8.8.8", Reach.PUBLIC),
    ],
)  # fmt: skip
def test_an_address_is_so_far_inside(address: str, expected: Reach) -> None:
    assert reach(address) is expected and addresses.is_public(address) is (expected is Reach.PUBLIC)
    for outermost in Reach:
        if expected <= outermost:
            check_address("h", address, outermost)
        else:
            told = f"a {expected.name.lower()} address; who answers from a {outermost.name.lower()} one may not"
            with pytest.raises(FetchError, match=told):
                check_address("h", address, outermost)


def test_a_host_of_a_bundle_is_a_name_that_may_be_asked() -> None:
    addresses.check_host_name("a.test")
    with pytest.raises(InvalidArgument, match="has no host"):
        addresses.check_host_name("")
    for name in ("metadata.google.internal", "METADATA.goog.", "instance-data"):
        with pytest.raises(FetchError, match=f"`{name}` is a metadata service"):
            addresses.check_host_name(name)


@pytest.mark.parametrize(
    ("text", "lower"),
    [("HTTPS://A.test/B", "https://A.test/B"), ("Oci://R/A", "oci://R/A"), ("/A/B", "/A/B"), ("", ""), ("A://B://C", "a://B://C"), ("/X/HTTPS://a", "/X/HTTPS://a"), ("G+T.-1://A", "g+t.-1://A"), ("1A://B", "1A://B")],
)  # fmt: skip
def test_a_scheme_alone_is_made_lower(text: str, lower: str) -> None:
    assert addresses.lower_scheme(text) == lower


@pytest.mark.parametrize(
    ("text", "named"),
    [("a.test", True), ("a.test:80", True), ("a-b:99999", True), ("[::1]:5", True), ("[::1]", True), ("::1", False), ("a.test:", False), ("a.test:100000", False), ("a/b", False), ("", False), ("a.test\n", False), ("u@a.test", False)],
)  # fmt: skip
def test_a_registry_is_named_by_host_and_port(text: str, named: bool) -> None:
    assert addresses.is_host_and_port(text) is named


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("HTTPS://h.test:80/a/b", "https://h.test:80/a/b"), ("https://h.test:", "https://h.test:"), ("https://h.test:s3cret/x", "https://…"), ("https://[::1]:s3cret/", "https://…"),
        ("https://[::1]/x", "https://[::1]/x"), ("oci://r.io:s3cret/x", "oci://r.io:s3cret/x"), ("https://h/a#s3cret?s3cret", "https://h/a?…"), ("https://h/a?b?c#d", "https://h/a?…"),
        ("https://u@v:p@h/a", "https://h/a"), ("https://h.test:123456/x", "https://…"), ("repo://a@sha256:00?x", "repo://a@sha256:00?…"), ("https://a@sha256:00/x", "https://sha256:00/x"),
        ("plain?text#here", "plain?text#here"), ("file://u:p@h/x", "file://h/x"),
        ("u:s3cret@h:80/b", "u:h:80/b"), ("u:s3cret@h", "u:h"), ("http:/u:s3cret@h/b", "http:/h/b"), ("http:u:s3cret@h/b", "http:h/b"), ("//u:s3cret@h/b", "//h/b"),
        ("u:s3cr@t@h/b", "u:h/b"), ("a@b/c", "a@b/c"), ("./a:b@c/d", "./a:b@c/d"), ("/a:b@c/d", "/a:b@c/d"), ("a/b:c@d", "a/b:c@d"), ("file:///a:b@c", "file:///a:b@c"),
    ],
)  # fmt: skip
def test_an_address_is_shown_in_its_parts(url: str, seen: str) -> None:
    assert shown(url) == seen


@pytest.mark.parametrize(
    ("url", "written"),
    [
        ("https://h/a@b", True), ("https://h?a@b", True), ("https://h#a@b", True), ("https://h\\a@b", True), ("a@b", True), ("oci://a@sha256:00", True), (" repo://a@sha256:00 ", True),
        ("https://u@h/", False), ("OCI://u@r.io/a", False), ("https://a@sha256:00", False), ("oci://u:p@sha256/x", False), ("ftp://u:p@h", False), (" https://u:p@h ", False),
    ],
)  # fmt: skip
def test_who_writes_credentials_into_an_address_is_told_where_they_belong(url: str, written: bool) -> None:
    if written:
        check_authored(url, "the source")
        return
    with pytest.raises(InvalidArgument, match="the source `.*credentials do not belong into an address") as error:
        check_authored(url, "the source")
    assert error.value.hint == addresses.OF_REGISTRIES
    with pytest.raises(InvalidArgument) as error:
        check_authored(url, "the source", "do this")
    assert error.value.hint == "do this"
