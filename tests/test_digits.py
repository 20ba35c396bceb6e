"""Numbers that somebody writes as digits: however many there are, and of whatever script, each is told as what it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentic.cli.op_payload import parse_entry
from greentic.ground import variables
from greentic.ground.digits import whole_number
from greentic.ground.documents import Json
from greentic.ground.errors import GreenticError, InvalidArgument, SpecViolation
from greentic.k8s.answers import read_answers
from greentic.model.hosts import check_public_base_url, split_listen_addr
from greentic.net.proxies import Proxies, Proxy, proxy_for
from greentic.worker.settings import ListenVariables, bind_address

LONG, SUPERSCRIPT, ARABIC = "9" * 5000, "\u00b2", "\u0665"
ODD = (LONG, SUPERSCRIPT, ARABIC, "0" * 5000, "--5", "+", "")


@given(st.integers(0, 10**30), st.integers(0, 10**30))
def test_a_number_within_bounds_is_taken(number, most):
    assert whole_number(str(number), most) == (number if number <= most else None)
    assert whole_number(f"0{number}", most) == (number if number <= most else None)


@pytest.mark.parametrize("text", ODD)
def test_nothing_else_is(text):
    assert whole_number(text, 2**64) is None


@pytest.mark.parametrize("text", ODD)
def test_every_door_says_what_is_wrong(text):
    """Python refuses to read thousands of digits with an error that nobody expects."""
    if text:
        with pytest.raises(SpecViolation, match="port is not a valid number"):
            check_public_base_url(f"https://h:{text}" if text.isascii() else "https://h:x")
    with pytest.raises(ValueError, match="invalid socket address syntax"):
        split_listen_addr(f"127.0.0.1:{text}")
    with pytest.raises(InvalidArgument, match="no whole number"):
        parse_entry(f"hello@1={text}%")
    if text:
        told = bind_address(None, ListenVariables(port=text))
        assert (
            told.value == "127.0.0.1:8080" and "is no port; ignored" in told.warnings[0] and len(told.warnings[0]) < 200
        )
        with pytest.raises(InvalidArgument, match="expected a whole number"):
            variables.count("GREENTIC_MAX_CONNECTIONS", {"GREENTIC_MAX_CONNECTIONS": text}, least=1)


@pytest.mark.parametrize("text", [LONG, SUPERSCRIPT, ARABIC])
def test_an_entry_of_no_proxy_with_an_odd_port_excepts_nobody(text):
    proxy = Proxy("p", 3128, None, "HTTP_PROXY")
    assert proxy_for(Proxies(http=proxy, bypass=(f"h:{text}",)), "http", "h", 80) is proxy


def term(value: str) -> Json:
    expression: Json = {"key": "size", "operator": "Gt", "values": [value]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}}  # fmt: skip


@pytest.mark.parametrize("text", [*ODD, str(1 << 63)])
def test_answers_of_a_deployer_do_as_well(text):
    with pytest.raises(GreenticError, match="Gt compares with a whole number"):
        read_answers({"worker": {"affinity": term(text)}}, "prod")
    assert read_answers({"worker": {"affinity": term("-5")}}, "prod")
    if text:
        with pytest.raises(GreenticError, match="drain_delay_seconds must be a whole number from 0 to 600") as told:
            read_answers({"drain_delay_seconds": text}, "prod")
        assert len(str(told.value)) < 300
